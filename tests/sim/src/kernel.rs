//! The door to a machine of the simulation, where an agent has the door to Linux.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipnet::IpNet;
use manx_felix::{
    Attached, Begun, BoxFuture, Ends, FoundRuleset, Hop, IfIndex, Kernel, KernelError, MacAddress, Operation,
    Ownership, PodLink, Protocol, Route, RouteKey, Ruleset, Snapshot, Target,
};

use crate::machine::{Kind, Machine};
use crate::world::{Act, Net, World};

/// The kernel of one machine.
#[derive(Clone, Debug)]
pub struct FakeKernel {
    net: Net,
    machine: String,
}

impl FakeKernel {
    /// The kernel of `machine`.
    pub fn new(net: Net, machine: &str) -> Self {
        Self { net, machine: machine.to_owned() }
    }

    /// Works on the machine, if it is on.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut World, &str) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let mut world = self.net.world();
        match world.machines.contains_key(&self.machine) {
            true => work(&mut world, &self.machine),
            false => Err(refused("working", "the machine is off")),
        }
    }

    /// Fails as often as the machine's faults want it.
    fn chance(&self, action: &str, percent: impl FnOnce(&Machine) -> u8) -> Result<(), KernelError> {
        self.with(|world, name| {
            let percent = percent(&world.machines[name]);
            match world.random.chance(percent) {
                true => Err(refused(action, "out of luck")),
                false => Ok(()),
            }
        })
    }

    fn operate(&self, operation: Operation) -> Result<(), KernelError> {
        self.chance("writing", |machine| machine.faults.write)?;
        self.with(|world, name| {
            let Some(machine) = world.machines.get_mut(name) else { return Ok(()) };
            if let Some(foreign) = overwritten(machine, &operation) {
                world
                    .violations
                    .push(format!("{name}: {operation:?} takes another program's route {foreign:?}"));
            }
            let Some(machine) = world.machines.get_mut(name) else { return Ok(()) };
            let answer = machine.operate(&operation);
            let act = match &answer {
                Ok(()) => Act::Wrote(operation),
                Err(error) => Act::Refused(operation, error.reason.clone()),
            };
            world.record(name, act);
            answer
        })
    }

    fn write_ruleset_now(&self, ruleset: Option<Ruleset>) -> Result<(), KernelError> {
        self.with(|world, name| {
            let unlucky = world.machines.get(name).is_some_and(|machine| !machine.nftables)
                || world.random.chance(world.machines[name].faults.write);
            let Some(machine) = world.machines.get_mut(name).filter(|_| !unlucky) else {
                world.record(name, Act::RefusedRuleset("out of luck".to_owned()));
                return Err(refused("writing the ruleset", "out of luck"));
            };
            machine.ruleset = ruleset.map(|ruleset| FoundRuleset { ruleset, altered: false });
            world.record(name, Act::WroteRuleset);
            Ok(())
        })
    }

    /// Changes the machine on behalf of a pod.
    fn pod<T>(
        &self,
        device: &str,
        what: &'static str,
        change: impl FnOnce(&mut Machine) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        self.with(|world, name| {
            let machine = world.machines.get_mut(name).ok_or_else(|| refused(what, "the machine is off"))?;
            let answer = change(machine)?;
            world.record(name, Act::Pod(device.to_owned(), what));
            Ok(answer)
        })
    }

    async fn begin_steps(&self, pod: &PodLink, ipv6: bool) -> Result<Option<Ends>, KernelError> {
        self.net.pause().await;
        self.chance("beginning to attach", |machine| machine.faults.write)?;
        match self.with(|world, name| Ok(world.machines[name].device(&pod.host_device).is_some()))? {
            true => Ok(None),
            false => Ok(Some(Ends { host: self.make(pod)?, pod: IfIndex(2), mtu: pod.mtu, ipv6 })),
        }
    }

    async fn attach_steps(&self, ends: Option<Ends>, pod: &PodLink) -> Result<(), KernelError> {
        let device = pod.host_device.as_str();
        self.net.pause().await;
        if let Some(ends) = ends {
            return self.finish(pod, ends.host).await;
        }
        let differs = self.with(|world, name| Ok(differences(&world.machines[name], pod)))?;
        if differs.is_empty() {
            return Ok(());
        }
        self.pod(device, "is replaced", |machine| {
            if let Some(index) = machine.device(device).map(|device| device.link.index) {
                machine.delete_device(index);
            }
            Ok(())
        })?;
        let index = self.make(pod)?;
        self.finish(pod, index).await
    }

    fn make(&self, pod: &PodLink) -> Result<IfIndex, KernelError> {
        self.pod(&pod.host_device, "is made", |machine| {
            let kind = Kind::Veth(BTreeSet::new());
            Ok(machine.add_device(&pod.host_device, kind, pod.mtu, Some(pod.handle.clone())))
        })
    }

    async fn finish(&self, pod: &PodLink, index: IfIndex) -> Result<(), KernelError> {
        let finished = self.finish_steps(pod, index).await;
        if finished.is_err() {
            self.pod(&pod.host_device, "is taken back", |machine| {
                machine.delete_device(index);
                Ok(())
            })?;
        }
        finished
    }

    async fn finish_steps(&self, pod: &PodLink, index: IfIndex) -> Result<(), KernelError> {
        self.net.pause().await;
        self.chance("attaching", |machine| machine.faults.write)?;
        self.pod(&pod.host_device, "is up", |machine| {
            machine.set_up(index, true);
            if let Some(device) = machine.devices.get_mut(&index) {
                device.kind = Kind::Veth(addresses(pod).collect());
            }
            Ok(())
        })?;
        self.net.pause().await;
        for route in host_routes(pod, index) {
            self.operate(Operation::AddRoute(route))?;
        }
        Ok(())
    }
}

impl Kernel for FakeKernel {
    fn prepare<'a>(
        &'a self,
        device: &'a str,
        forwarding: bool,
    ) -> BoxFuture<'a, Result<Vec<String>, KernelError>> {
        Box::pin(async move {
            self.net.pause().await;
            self.with(|world, name| {
                let Some(machine) = world.machines.get_mut(name) else { return Ok(Vec::new()) };
                if machine.device(device).is_none() {
                    return Err(refused("preparing", "no such device"));
                }
                machine.forwarding |= forwarding;
                Ok(Vec::new())
            })
        })
    }

    fn read(&self) -> BoxFuture<'_, Result<Snapshot, KernelError>> {
        Box::pin(async move {
            self.net.pause().await;
            self.chance("reading", |machine| machine.faults.read)?;
            let snapshot = self.with(|world, name| Ok(world.machines[name].snapshot()));
            // What is read may be old by the time it is told.
            self.net.pause().await;
            snapshot
        })
    }

    fn apply(&self, operations: Vec<Operation>) -> BoxFuture<'_, Vec<Result<(), KernelError>>> {
        Box::pin(async move {
            let mut answers = Vec::new();
            for operation in operations {
                self.net.pause().await;
                answers.push(self.operate(operation));
            }
            answers
        })
    }

    fn ruleset(&self) -> BoxFuture<'_, Result<Option<FoundRuleset>, KernelError>> {
        Box::pin(async move {
            self.net.pause().await;
            self.chance("reading the ruleset", |machine| machine.faults.read)?;
            let found = self.with(|world, name| match &world.machines[name] {
                machine if machine.nftables => Ok(machine.ruleset.clone()),
                _ => Err(refused("reading the ruleset", "this kernel has no nftables")),
            });
            self.net.pause().await;
            found
        })
    }

    fn write_ruleset(&self, ruleset: Option<Ruleset>) -> BoxFuture<'_, Result<(), KernelError>> {
        Box::pin(async move {
            self.net.pause().await;
            self.write_ruleset_now(ruleset)
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        let changed =
            self.net.world().machines.get(&self.machine).map(|machine| Arc::clone(&machine.changed));
        Box::pin(async move {
            match changed {
                Some(changed) => changed.notified().await,
                None => std::future::pending().await,
            }
        })
    }

    fn begin<'a>(
        &'a self,
        netns: OwnedFd,
        pod: &'a PodLink,
        ipv6: bool,
    ) -> BoxFuture<'a, Result<Begun, KernelError>> {
        Box::pin(async move { Ok(Begun { netns, ends: self.begin_steps(pod, ipv6).await? }) })
    }

    fn attach<'a>(&'a self, begun: Begun, pod: &'a PodLink) -> BoxFuture<'a, Result<Attached, KernelError>> {
        Box::pin(async move {
            self.attach_steps(begun.ends, pod).await?;
            let pod_mac = pod.pod_mac.unwrap_or(MacAddress([2, 0, 0, 0, 0, 1]));
            Ok(Attached { host_mac: MacAddress::HOST_END, pod_mac, mtu: pod.mtu })
        })
    }

    fn check<'a>(&'a self, _: OwnedFd, pod: &'a PodLink) -> BoxFuture<'a, Result<Vec<String>, KernelError>> {
        Box::pin(async move { self.with(|world, name| Ok(differences(&world.machines[name], pod))) })
    }

    fn detach<'a>(&'a self, host_device: &'a str, handle: &'a str) -> BoxFuture<'a, Result<(), KernelError>> {
        Box::pin(async move {
            self.net.pause().await;
            self.chance("detaching", |machine| machine.faults.write)?;
            let present = self.with(|world, name| {
                let device = world.machines[name].device(host_device);
                let ours = device.filter(|device| device.link.alias.as_deref() == Some(handle));
                Ok(ours.map(|device| device.link.index))
            })?;
            let Some(index) = present else { return Ok(()) };
            self.pod(host_device, "is deleted", |machine| {
                machine.delete_device(index);
                Ok(())
            })?;
            self.net.pause().await;
            Ok(())
        })
    }
}

/// Another program's route that the operation would take away: the kernel would let it happen.
fn overwritten<'a>(machine: &'a Machine, operation: &Operation) -> Option<&'a Route> {
    let foreign = |route: &&Route| !Ownership::is_ours(route);
    match operation {
        Operation::ReplaceRoute(wanted) => {
            machine.routes.iter().filter(foreign).find(|route| route.key == wanted.key)
        }
        Operation::DeleteRoute(wanted) => {
            machine.routes.iter().filter(foreign).find(|route| *route == wanted)
        }
        _ => None,
    }
}

fn differences(machine: &Machine, pod: &PodLink) -> Vec<String> {
    let Some(device) = machine.device(&pod.host_device) else {
        return vec![format!("{} is not there", pod.host_device)];
    };
    let wanted: BTreeSet<Ipv4Addr> = addresses(pod).collect();
    let mut differences = Vec::new();
    if device.link.alias.as_ref() != Some(&pod.handle) {
        differences.push(format!("its alias is {:?}", device.link.alias));
    }
    if !device.link.up || device.kind != Kind::Veth(wanted) {
        differences.push(format!("it is {device:?}"));
    }
    let missing = host_routes(pod, device.link.index).filter(|route| !machine.routes.contains(route));
    differences.extend(missing.map(|route| format!("route {} is missing", route.key)));
    differences
}

fn addresses(pod: &PodLink) -> impl Iterator<Item = Ipv4Addr> {
    pod.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    })
}

fn host_routes(pod: &PodLink, device: IfIndex) -> impl Iterator<Item = Route> {
    addresses(pod).map(move |address| Route {
        key: RouteKey { destination: IpNet::from(IpAddr::V4(address)), priority: 0 },
        protocol: Protocol::MANX,
        target: Target::Hops(vec![Hop { device, gateway: None, onlink: false }]),
    })
}

fn refused(action: &str, reason: &str) -> KernelError {
    KernelError { action: action.to_owned(), reason: reason.to_owned(), errno: None }
}
