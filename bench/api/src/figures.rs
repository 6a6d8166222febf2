//! What is measured on one fleet: its agents start, rest, see pods come and go, and hear of other nodes' heartbeats.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use manx_kubernetes::Requests;
use manx_model::Kind;

use crate::{Bgp, Fleet, Place, cpu};

/// Pods that come one after the other.
const ALONE: usize = 40;
/// How many come at once, in a burst, and how many in all bursts together.
const BURST: usize = 32;
const IN_BURSTS: usize = 5 * BURST;
/// Other nodes whose kubelets say that they live, at most.
const HEARTBEATS: usize = 50;

/// Everything about a fleet of one size.
#[derive(Clone, Debug)]
pub struct Figures {
    /// How many nodes.
    pub nodes: usize,
    /// Whether they speak BGP.
    pub bgp: Bgp,
    /// Of the node that comes last.
    pub start: Start,
    /// While nothing happens.
    pub rest: Rest,
    /// The first ADD of a node, which claims a block.
    pub first_add: usize,
    /// Pods one after the other.
    pub alone: Pods,
    /// Pods in bursts of 32; what they need of new blocks is in it.
    pub burst: Pods,
    /// What these pods were to all other nodes.
    pub elsewhere: Option<Elsewhere>,
    /// Bytes which an agent is told of one heartbeat of another node's kubelet.
    pub heartbeat: Option<f64>,
}

/// The start of an agent.
#[derive(Clone, Debug)]
pub struct Start {
    /// Requests, watches among them.
    pub calls: usize,
    /// Watches that it has begun, and keeps.
    pub watches: usize,
    /// What the watches were told, in bytes.
    pub bytes: u64,
}

/// What passes for one agent in a minute in which nothing happens, on average.
#[derive(Clone, Debug)]
pub struct Rest {
    /// Requests.
    pub calls: f64,
    /// Bytes that its watches are told.
    pub bytes: f64,
    /// Its processor time, in milliseconds; none where there is no other than the one under test.
    pub cpu: Option<f64>,
    /// Processor time of the API server for all of them, in seconds.
    pub api_server: f64,
}

/// What is asked for of one pod, on average.
#[derive(Clone, Debug)]
pub struct Pods {
    /// Requests of an ADD.
    pub add: f64,
    /// Those of them that write a block.
    pub block_writes: f64,
    /// Requests of a DEL.
    pub del: f64,
    /// Processor time of the API server for an ADD, in milliseconds, without what it takes at rest.
    pub api_server_add: f64,
    /// The same for a DEL.
    pub api_server_del: f64,
}

/// What the pods of one node are to all others.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Pods that came and went.
    pub pods: usize,
    /// Requests of all others together, but for those that time brings: renewals of watches, and looks at the Lease.
    pub calls: usize,
    /// Events which all others together were told, without bookmarks.
    pub news: u64,
    /// Processor time of each of them for each pod that came and went, in microseconds, without what it takes at rest.
    /// Below zero where rest was less quiet.
    pub cpu: f64,
}

/// One fleet under measurement. The node under test is the last.
struct Bench<'a> {
    fleet: Fleet,
    size: usize,
    say: &'a dyn Fn(&str),
}

/// Raises a fleet and measures it; `say` is told what is being done. Agents are started `at_once`, and rest is watched
/// for `rest`.
///
/// # Errors
/// Something does not work: there are no figures then.
pub fn measure(size: usize, bgp: Bgp, at_once: usize, rest: Duration, say: &dyn Fn(&str)) -> Result<Figures> {
    ensure!(size > 0 && at_once > 0, "a fleet has a node, and they are started one at a time at least");
    say(&format!("{size} nodes: they are registered"));
    let mut bench = Bench { fleet: Fleet::start(size, bgp)?, size, say };
    let start = bench.start(at_once)?;
    let (rest, idle) = bench.rest(rest)?;
    let first = bench.pods("first", 1, 1, &idle)?;
    let before = bench.others()?;
    let alone = bench.pods("alone", 1, ALONE, &idle)?;
    let burst = bench.pods("burst", BURST, IN_BURSTS, &idle)?;
    let elsewhere = bench.elsewhere(&before, &idle)?;
    let heartbeat = bench.heartbeats()?;
    Ok(Figures {
        nodes: size,
        bgp,
        start,
        rest,
        first_add: first.add as usize,
        alone,
        burst,
        elsewhere,
        heartbeat,
    })
}

/// Processor time that passes when nothing happens, by second.
struct Idle {
    api_server: f64,
    others: f64,
}

/// The other nodes at one moment.
struct Others {
    at: Instant,
    cpu: Duration,
    calls: u64,
    news: u64,
}

impl Bench<'_> {
    /// Starts all agents; tells of the last one.
    fn start(&mut self, at_once: usize) -> Result<Start> {
        let others: Vec<usize> = (1..self.size).collect();
        for wave in others.chunks(at_once) {
            self.fleet.run(wave.iter().copied(), Place::Far)?;
            self.tell(&format!("{} agents run", self.fleet.nodes().len()));
        }
        let mark = self.fleet.control_plane().audit().mark()?;
        self.fleet.run([self.size], Place::Near)?;
        let asked = self.fleet.asked(self.size, mark)?;
        let told = self.fleet.node(self.size)?.traffic().told();
        Ok(Start { calls: asked.count(), watches: watches(&asked), bytes: told.bytes })
    }

    fn rest(&self, duration: Duration) -> Result<(Rest, Idle)> {
        self.tell(&format!("at rest, for {} s", duration.as_secs()));
        let sums = || {
            let traffic = self.fleet.nodes().values().map(crate::Node::traffic);
            traffic.fold((0, 0), |(calls, bytes), one| (calls + one.total(), bytes + one.told().bytes))
        };
        let (calls, bytes) = sums();
        let (api_server, others) = (self.api_server()?, self.far()?);
        self.fleet.pass(duration);
        let seconds = duration.as_secs_f64();
        let idle = Idle {
            api_server: (self.api_server()? - api_server).as_secs_f64() / seconds,
            others: (self.far()? - others).as_secs_f64() / seconds,
        };
        let (calls_then, bytes_then) = sums();
        let per_minute = |count: u64| count as f64 / self.size as f64 * 60.0 / seconds;
        let rest = Rest {
            calls: per_minute(calls_then - calls),
            bytes: per_minute(bytes_then - bytes),
            cpu: (self.size > 1).then(|| idle.others / (self.size - 1) as f64 * 60_000.0),
            api_server: idle.api_server * 60.0,
        };
        Ok((rest, idle))
    }

    /// `count` pods come, so many at once, and then go.
    fn pods(&self, prefix: &str, at_once: usize, count: usize, idle: &Idle) -> Result<Pods> {
        self.tell(&format!("{count} pods come and go, {at_once} at once"));
        let names: Vec<String> = (1..=count).map(|number| format!("{prefix}{number}")).collect();
        self.fleet.schedule(self.size, &names)?;
        let each = |of_one: &dyn Fn(&[String]) -> Result<()>| -> Result<(Requests, f64)> {
            self.fleet.node(self.size)?.await_quiet()?;
            let mark = self.fleet.control_plane().audit().mark()?;
            let (began, before) = (Instant::now(), self.api_server()?);
            names.chunks(at_once).try_for_each(of_one)?;
            let rest = idle.api_server * began.elapsed().as_secs_f64();
            let cpu = (self.api_server()? - before).as_secs_f64() - rest;
            self.fleet.node(self.size)?.await_quiet()?;
            let asked = self.fleet.asked(self.size, mark)?.filter(|request| request.verb != "watch");
            Ok((asked, cpu * 1000.0 / count as f64))
        };
        let (added, api_server_add) = each(&|names| self.fleet.add(self.size, names))?;
        let (deleted, api_server_del) = each(&|names| self.fleet.del(self.size, names))?;
        self.fleet.forget(&names)?;
        self.fleet.node(self.size)?.await_quiet()?;
        let by_pod = |calls: usize| calls as f64 / count as f64;
        Ok(Pods {
            add: by_pod(added.count()),
            block_writes: by_pod(block_writes(&added)),
            del: by_pod(deleted.count()),
            api_server_add,
            api_server_del,
        })
    }

    fn elsewhere(&self, before: &Others, idle: &Idle) -> Result<Option<Elsewhere>> {
        let others = self.size - 1;
        if others == 0 {
            return Ok(None);
        }
        let (now, pods) = (self.others()?, ALONE + IN_BURSTS);
        let rest = idle.others * (now.at - before.at).as_secs_f64();
        let cpu = (now.cpu - before.cpu).as_secs_f64() - rest;
        let cpu = cpu * 1_000_000.0 / (pods * others) as f64;
        let (calls, news) = ((now.calls - before.calls) as usize, now.news - before.news);
        Ok(Some(Elsewhere { pods, calls, news, cpu }))
    }

    /// Other nodes' kubelets say that they live, as they do every five minutes; what this is for an agent.
    fn heartbeats(&self) -> Result<Option<f64>> {
        let count = HEARTBEATS.min(self.size - 1);
        if count == 0 {
            return Ok(None);
        }
        self.tell("heartbeats");
        // The first changes more than the others do: the condition gets its time.
        self.beat(count, 0)?;
        Ok(Some(self.beat(count, 1)?))
    }

    fn beat(&self, count: usize, beat: usize) -> Result<f64> {
        let node = self.fleet.node(self.size)?;
        node.await_quiet()?;
        let before = node.traffic().told().bytes;
        (1..=count).try_for_each(|number| self.fleet.heartbeat(number, beat))?;
        node.await_quiet()?;
        Ok((node.traffic().told().bytes - before) as f64 / count as f64)
    }

    fn others(&self) -> Result<Others> {
        let others = || self.fleet.nodes().iter().filter(|(number, _)| **number != self.size);
        let not_by_time = |node: &crate::Node| {
            let calls = node.traffic().calls;
            // Who leads looks now and then whether somebody has defined Calico's policies.
            let by_time = |kind: Kind| kind == Kind::Lease || Kind::POLICIES.contains(&kind);
            let caused = calls.iter().filter(|((verb, kind), _)| *verb != "watch" && !by_time(*kind));
            caused.map(|(_, count)| count).sum::<u64>()
        };
        Ok(Others {
            at: Instant::now(),
            cpu: self.far()?,
            calls: others().map(|(_, node)| not_by_time(node)).sum(),
            news: others().map(|(_, node)| node.news()).sum(),
        })
    }

    fn far(&self) -> Result<Duration> {
        cpu::of_threads(Place::Far.threads())
    }

    fn api_server(&self) -> Result<Duration> {
        Ok(self.fleet.control_plane().cpu().context("of the API server")?.api_server)
    }

    fn tell(&self, what: &str) {
        (self.say)(&format!("{} nodes: {what}", self.size));
    }
}

/// How many watches there are among these.
pub fn watches(asked: &Requests) -> usize {
    asked.filter(|request| request.verb == "watch").count()
}

/// How many of these write a block.
pub fn block_writes(asked: &Requests) -> usize {
    asked.count_of("create", "ipamblocks") + asked.count_of("update", "ipamblocks")
}
