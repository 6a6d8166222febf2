//! BIRD 1.6 on a node, configured as Calico's templates configure it.
//!
//! ```text
//!   kernel ── learn ──> table ── aggregation, pools ──> Mesh_…, Node_…
//!   kernel <── all but what is another's business ── table <── import all ──┘
//! ```
//!
//! A node of Calico's tells the ToR of every block that it has learned, also of those of others. `next hop keep` (of a
//! BGPPeer with `nextHopMode: Keep`) is what keeps the ToR from sending it the packets of other subnets, which it would
//! send back.
//!
//! Of two nodes the one whose address is greater, *as text*, dials; the other waits. The tunnel is left out: choosing it
//! takes Calico's fork of BIRD.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ipnet::Ipv4Net;
use manx_lab::{Lab, Process, Program, eventually, target_dir};

const NODE_AS: u32 = 64512;
const TOR_AS: u32 = 65000;
const PATIENCE: Duration = Duration::from_secs(10);

/// The BIRD of a node.
#[derive(Debug)]
pub struct Bird {
    facts: Facts,
    dir: PathBuf,
    process: Process,
}

/// What its configuration is made of.
#[derive(Debug, Clone)]
struct Facts {
    address: Ipv4Addr,
    mesh: Vec<Ipv4Addr>,
    tor: Ipv4Addr,
    pools: Vec<Ipv4Net>,
    blocks: Vec<Ipv4Net>,
}

impl Bird {
    /// Starts it on a node of the lab, in the mesh with all others and as a peer of the ToR; the node becomes a router.
    pub fn start(lab: &Lab, node: &str, pools: &[Ipv4Net]) -> Result<Bird> {
        let node = lab.node(node)?;
        let tor = lab.topology().subnet_of(node.spec())?.hosts().next().context("a subnet without hosts")?;
        let mesh = lab.nodes().map(|other| other.address()).filter(|other| *other != node.address());
        let facts = Facts {
            address: node.address(),
            mesh: mesh.collect(),
            tor,
            pools: pools.to_vec(),
            blocks: Vec::new(),
        };
        node.exec(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        let program = target_dir().join("bird16/bird");
        ensure!(program.is_file(), "{} is missing; run tests/bird16", program.display());
        fs::write(node.dir().join("bird.conf"), config(&facts)?)?;
        // Relative names: the path of the control socket has its limit (unix(7)). -R: what is in the kernel stays there
        // until the peers have said everything.
        let args = ["-R", "-d", "-c", "bird.conf", "-s", "bird.ctl"];
        let process = node.start("bird", Program::new(program).args(args).dir(node.dir()))?;
        let mut bird = Bird { facts, dir: node.dir(), process };
        eventually(PATIENCE, "BIRD to answer", || {
            if !bird.process.is_running() {
                return Ok(Err(anyhow::anyhow!("BIRD has ended: {}", bird.process.log().trim())));
            }
            bird.ask("show status").map(|_| Ok(()))
        })??;
        Ok(bird)
    }

    /// Gives it the confirmed blocks of its node, as confd does when an affinity changes.
    pub fn set_blocks(&mut self, blocks: &[Ipv4Net]) -> Result<()> {
        self.facts.blocks = blocks.to_vec();
        fs::write(self.dir.join("bird.conf"), config(&self.facts)?)?;
        let answer = self.ask("configure")?;
        ensure!(answer.contains("Reconfigur"), "birdc configure: {answer}");
        Ok(())
    }

    /// Fails unless all sessions are established.
    pub fn check_sessions(&self) -> Result<()> {
        let protocols = self.ask("show protocols")?;
        let sessions: Vec<&str> = protocols.lines().filter(|line| line.contains(" BGP ")).collect();
        ensure!(sessions.len() == self.facts.mesh.len() + 1, "the sessions are {protocols}");
        let down = sessions.iter().find(|line| !line.contains("Established"));
        ensure!(down.is_none(), "{}: {}", self.facts.address, down.copied().unwrap_or_default());
        Ok(())
    }

    /// Asks it by `birdc`.
    pub fn ask(&self, command: &str) -> Result<String> {
        let output = Command::new(target_dir().join("bird16/birdc"))
            .args(["-s", "bird.ctl"])
            .args(command.split_whitespace())
            .current_dir(&self.dir)
            .output()
            .context("cannot run birdc")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success() && !text.contains("syntax error"),
            "birdc {command}: {}",
            text.trim()
        );
        Ok(text)
    }

    /// The program, to be killed and started again.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn config(facts: &Facts) -> Result<String> {
    let mut text = format!(
        "log stderr all;\n\
         router id {own};\n\
         protocol device {{ scan time 2; }}\n\
         protocol direct {{ interface -\"cali*\", -\"kube-ipvs*\", \"*\"; }}\n\
         function calico_aggr() {{\n{aggregation}}}\n\
         filter calico_export {{\n  calico_aggr();\n{exported}  reject;\n}}\n\
         filter calico_kernel {{\n  accept;\n}}\n\
         protocol kernel {{\n  learn;\n  persist;\n  scan time 2;\n  import all;\n  export filter calico_kernel;\n  \
         graceful restart;\n  merge paths on;\n}}\n\
         protocol static {{\n{blackholes}}}\n\
         template bgp calico {{\n  local as {NODE_AS};\n  multihop;\n  gateway recursive;\n  import all;\n  \
         export filter calico_export;\n  add paths on;\n  graceful restart;\n  connect delay time 2;\n  \
         connect retry time 5;\n  error wait time 5, 30;\n}}\n",
        own = facts.address,
        aggregation = each(&facts.blocks, |block| format!(
            "  if ( net = {block} ) then accept;\n  if ( net ~ {block} ) then reject;\n"
        )),
        exported = each(&facts.pools, |pool| format!("  if ( net ~ {pool} ) then accept;\n")),
        blackholes = each(&facts.blocks, |block| format!("  route {block} blackhole;\n")),
    );
    let peers = facts.mesh.iter().map(|peer| ("Mesh", *peer, NODE_AS)).chain([("Node", facts.tor, TOR_AS)]);
    for (kind, peer, asn) in peers {
        let waits = kind == "Mesh" && peer.to_string() > facts.address.to_string();
        let more = match kind {
            "Mesh" if waits => "  passive on;\n",
            "Mesh" => "",
            _ => "  next hop keep;\n",
        };
        writeln!(
            text,
            "protocol bgp {kind}_{} from calico {{\n  neighbor {peer} as {asn};\n  source address {};\n{more}}}",
            peer.to_string().replace('.', "_"),
            facts.address
        )?;
    }
    Ok(text)
}

fn each(nets: &[Ipv4Net], line: impl Fn(&Ipv4Net) -> String) -> String {
    nets.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_nodes_the_one_whose_address_is_greater_as_text_dials() {
        let facts = Facts {
            address: Ipv4Addr::new(172, 171, 5, 10),
            mesh: vec![Ipv4Addr::new(172, 171, 5, 9), Ipv4Addr::new(172, 171, 10, 1)],
            tor: Ipv4Addr::new(172, 171, 5, 1),
            pools: Vec::new(),
            blocks: Vec::new(),
        };
        let text = config(&facts).unwrap();
        let part = |name: &str| text.split(name).nth(1).unwrap().split('}').next().unwrap().to_owned();
        assert!(part("Mesh_172_171_5_9 ").contains("passive on"), "{text}");
        assert!(!part("Mesh_172_171_10_1 ").contains("passive"), "{text}");
        assert!(part("Node_172_171_5_1 ").contains("as 65000"), "{text}");
    }
}
