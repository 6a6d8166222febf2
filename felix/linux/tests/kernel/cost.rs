//! What attaching a pod costs, one at a time: with IPv4 alone, with both families, and by the fewest calls that make a
//! link at all. Taken in turn on the same namespaces, so that what else the machine does hits all alike.

use std::time::{Duration, Instant};

use manx_felix::{Kernel, PodLink};
use rustix::time::{ClockId, clock_gettime};

use crate::bare;
use crate::common::{Netns, Node, dual, pod};

const PODS: u8 = 40;
const ROUNDS: usize = 2;

/// What one way of attaching took, call by call.
#[derive(Default)]
struct Sample {
    latency: Vec<Duration>,
    cpu: Vec<Duration>,
}

impl Sample {
    fn take(&mut self, work: impl FnOnce()) {
        let (begin, cpu) = (Instant::now(), process_cpu());
        work();
        self.cpu.push(process_cpu() - cpu);
        self.latency.push(begin.elapsed());
    }

    /// Prints, and returns the latency in µs that a tenth of the calls stayed below: what the calls themselves take, since
    /// whatever else runs only ever adds.
    fn told(mut self, what: &str) -> u128 {
        let at = |them: &mut Vec<Duration>, percent: usize| {
            them.sort();
            them[them.len() * percent / 100].as_micros()
        };
        let [fast, median, slow] = [10, 50, 99].map(|percent| at(&mut self.latency, percent));
        let cpu = at(&mut self.cpu, 50);
        println!("{what:10} p10 {fast:5} µs, p50 {median:5} µs, p99 {slow:5} µs; CPU p50 {cpu:4} µs");
        fast
    }
}

fn process_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        now.tv_sec.try_into().expect("the kernel does as it is asked"),
        now.tv_nsec.try_into().expect("works"),
    )
}

fn detach(node: &Node, pod: &PodLink, sample: &mut Sample) {
    sample.take(|| {
        node.wait(node.kernel.detach(&pod.host_device, &pod.handle)).expect("the kernel does as it is asked");
    });
}

#[test]
fn a_second_family_costs_less_than_a_third_more_and_the_first_little_more_than_the_bare_calls() {
    let node = Node::new();
    node.wait(node.kernel.prepare("eth0", true)).expect("the kernel does as it is asked");
    let [mut bare, mut single, mut double, mut detached] = [(); 4].map(|()| Sample::default());
    let pods: Vec<Netns> = (1..=PODS).map(|_| Netns::new()).collect();
    for _ in 0..ROUNDS {
        for (netns, n) in pods.iter().zip(1..) {
            let mut ways = [(pod(n), &mut single), (dual(n), &mut double)];
            // Neither is always the first after the bare calls.
            ways.rotate_left(usize::from(n) % 2);
            for (pod, sample) in ways {
                sample.take(|| node.attach(netns, &pod).expect("the kernel does as it is asked"));
                detach(&node, &pod, &mut detached);
            }
            let (home, file, pod) = (node.netns.file(), netns.file(), pod(n));
            node.netns.inside(|| {
                let socket = bare::socket();
                bare.take(|| bare::attach(&socket, &home, &file, &pod));
            });
            node.netns.run(&format!("ip link del {}", pod.host_device));
        }
    }
    let [bare, single, double] =
        [(bare, "bare calls"), (single, "IPv4"), (double, "both")].map(|(sample, what)| sample.told(what));
    detached.told("detached");
    let percent = |one: u128, of: u128| one * 100 / of;
    println!(
        "IPv4 is {} % of the bare calls; both are {} % of IPv4",
        percent(single, bare),
        percent(double, single)
    );
    assert!(percent(double, single) < 130);
    assert!(percent(single, bare) < 150);
}
