//! What Manx asks of the API server, as a table for fleets of several sizes: simulated nodes with real agents, on a real
//! kube-apiserver.

use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use manx_bench_api::{Bgp, figures, table};

/// Counts calls, watches, bytes and processor time per node and per pod. Needs `make kubernetes`.
#[derive(Parser)]
#[command(name = "bench-api", version)]
struct Args {
    /// Sizes of the fleets, in nodes.
    #[arg(long, value_delimiter = ',', default_value = "1,10,1000")]
    nodes: Vec<usize>,
    /// Whether the nodes speak BGP; a mesh of a thousand would measure BGP, not the API.
    #[arg(long, default_value = "up-to-ten")]
    bgp: Mesh,
    /// Agents that are started at the same time.
    #[arg(long, default_value = "25")]
    at_once: usize,
    /// For how many seconds rest is watched.
    #[arg(long, default_value = "60", value_parser = clap::value_parser!(u64).range(1..))]
    rest: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mesh {
    Always,
    UpToTen,
    Never,
}

impl Mesh {
    fn of(self, nodes: usize) -> Bgp {
        match self {
            Self::Always => Bgp::Mesh,
            Self::UpToTen if nodes <= 10 => Bgp::Mesh,
            Self::UpToTen | Self::Never => Bgp::None,
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let began = Instant::now();
    let say = |what: &str| eprintln!("{:7.1} s  {what}", began.elapsed().as_secs_f64());
    let measure = |&size: &usize| {
        figures::measure(size, args.bgp.of(size), args.at_once, Duration::from_secs(args.rest), &say)
    };
    let all = args.nodes.iter().map(measure).collect::<Result<Vec<_>>>()?;
    print!("{}", table::render(&all));
    Ok(())
}
