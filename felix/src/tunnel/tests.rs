use super::*;
use crate::testing::*;

/// A node's tunnel under a virtual clock, with the facts of the founding example.
struct Rig {
    machine: Lifecycle,
    now: Instant,
    mode: IpipMode,
    in_sync: bool,
    assigned: Option<Ipv4Addr>,
    mtu: Mtu,
    snapshot: Snapshot,
}

const OURS: Ipv4Addr = Ipv4Addr::new(192, 168, 236, 0);

impl Rig {
    fn new(mode: IpipMode, snapshot: Snapshot) -> Self {
        let mtu = Mtu::default();
        Self {
            machine: Lifecycle::new(),
            now: Instant::now(),
            mode,
            in_sync: true,
            assigned: Some(OURS),
            mtu,
            snapshot,
        }
    }

    fn step(&mut self) -> Decision {
        let pools = [pool("192.168.0.0/16", self.mode)];
        let facts = TunnelFacts {
            pools: &pools,
            in_sync: self.in_sync,
            node: "172.171.5.95".parse().unwrap(),
            assigned: self.assigned,
            mtu: self.mtu,
        };
        self.machine.step(self.now, &facts, &self.snapshot)
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

#[test]
fn a_wanted_tunnel_is_assigned_set_up_and_only_then_published() {
    let mut rig = Rig { assigned: None, ..Rig::new(IpipMode::Always, snapshot()) };
    let assign = rig.step();
    assert_eq!(
        (assign.address, assign.operation, assign.publish),
        (AddressWish::Assign, None, Publish::Keep)
    );
    rig.assigned = Some(OURS);
    let up = rig.step();
    assert_eq!(up.operation, Some(Operation::TunnelUp { address: OURS, mtu: 1480 }));
    assert_eq!(up.publish, Publish::Keep, "not before it takes packets");
    rig.snapshot = with_tunnel();
    let ready = rig.step();
    assert_eq!((ready.operation, ready.publish), (None, Publish::Set(OURS)));
}

#[test]
fn an_unwanted_tunnel_is_unpublished_at_once_and_gone_after_a_minute() {
    let mut rig = Rig::new(IpipMode::Never, with_tunnel());
    let first = rig.step();
    assert_eq!((first.operation, first.publish), (None, Publish::Clear));
    assert_eq!(first.deadline, Some(rig.now + LINGER));
    rig.pass(59);
    assert_eq!(rig.step().operation, None);
    rig.pass(1);
    let down = rig.step();
    assert_eq!((down.operation, down.address), (Some(Operation::TunnelDown), AddressWish::Keep));
    rig.snapshot = snapshot();
    assert_eq!(rig.step().address, AddressWish::Release, "after the device has let go of it");
    rig.assigned = None;
    assert_eq!(rig.step(), Decision { publish: Publish::Clear, ..Decision::KEEP });
}

#[test]
fn wanted_again_within_the_minute_nothing_has_happened() {
    let mut rig = Rig::new(IpipMode::Never, with_tunnel());
    rig.step();
    rig.pass(59);
    rig.mode = IpipMode::CrossSubnet;
    assert_eq!(rig.step(), Decision { publish: Publish::Set(OURS), ..Decision::KEEP });
    rig.mode = IpipMode::Never;
    rig.pass(59);
    assert_eq!(rig.step().deadline, Some(rig.now + LINGER), "the minute starts anew");
}

#[test]
fn without_the_datastore_nothing_is_taken_away_but_repairs_go_on() {
    let mut rig = Rig::new(IpipMode::Never, with_tunnel());
    rig.in_sync = false;
    rig.pass(3600);
    assert_eq!(rig.step(), Decision::KEEP);
    rig.mode = IpipMode::Always;
    rig.snapshot = snapshot();
    assert!(rig.step().operation.is_some());
}

#[test]
fn the_minute_counts_but_nothing_is_done_until_the_datastore_is_back() {
    let mut rig = Rig::new(IpipMode::Never, with_tunnel());
    rig.step();
    rig.in_sync = false;
    rig.pass(61);
    assert_eq!(rig.step(), Decision::KEEP);
    rig.in_sync = true;
    assert_eq!(rig.step().operation, Some(Operation::TunnelDown));
}

#[test]
fn a_refusal_is_told_unpublished_and_tried_again_later() {
    let mut rig = Rig::new(IpipMode::Always, snapshot());
    let refusal = KernelError { action: "making tunl0".into(), reason: "no ipip".into(), errno: Some(95) };
    assert!(rig.step().operation.is_some());
    rig.machine.failed(rig.now, refusal);
    let held = rig.step();
    assert_eq!((held.operation, held.publish), (None, Publish::Clear));
    assert_eq!(held.problem.as_deref(), Some("making tunl0: no ipip"));
    assert_eq!(held.deadline, Some(rig.now + RETRY));
    rig.pass(10);
    assert!(rig.step().operation.is_some());
    rig.snapshot = with_tunnel();
    assert_eq!(rig.step(), Decision { publish: Publish::Set(OURS), ..Decision::KEEP });
}

#[test]
fn a_tunnel_that_is_ruled_out_is_unwanted_whatever_the_pools_say() {
    let mut rig = Rig::new(IpipMode::Always, with_tunnel());
    rig.mtu.ipip_ruled_out = true;
    assert_eq!(rig.step().publish, Publish::Clear);
}

#[test]
fn a_wrong_mtu_is_corrected_while_the_tunnel_stays_published() {
    let mut rig = Rig::new(IpipMode::Always, with_tunnel());
    rig.mtu.configured = Some(1400);
    let decision = rig.step();
    assert_eq!(decision.operation, Some(Operation::TunnelUp { address: OURS, mtu: 1400 }));
    assert_eq!(decision.publish, Publish::Set(OURS));
}

#[test]
fn a_tunl0_that_others_use_is_left_alone() {
    let mut rig = Rig { assigned: None, ..Rig::new(IpipMode::Never, with_tunnel()) };
    rig.snapshot.links.insert(TUNL0, link(TUNL0, "tunl0", &["10.1.1.1/30"]));
    assert_eq!(rig.step().deadline, None);
    rig.snapshot = with_tunnel();
    assert!(rig.step().deadline.is_some(), "an address of a pool can only be ours");
}

#[test]
fn a_node_whose_address_is_on_no_link_has_no_tunnel_and_says_so() {
    let mut rig = Rig::new(IpipMode::Always, Snapshot::default());
    assert_eq!(rig.step().problem.as_deref(), Some("no link carries the node's address 172.171.5.95"));
}

#[test]
fn an_address_whose_pool_is_gone_is_given_back_for_another() {
    let mut rig =
        Rig { assigned: Some(Ipv4Addr::new(10, 0, 0, 1)), ..Rig::new(IpipMode::Always, with_tunnel()) };
    assert_eq!(rig.step().address, AddressWish::Release);
    rig.assigned = None;
    assert_eq!(rig.step().address, AddressWish::Assign);
}
