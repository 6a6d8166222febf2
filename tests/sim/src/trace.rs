//! Where a packet goes: through the machines' tables, hop by hop, as the network would carry it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use manx_felix::{TUNNEL_DEVICE, Target};

use crate::machine::{Kind, Machine, Segment};
use crate::world::World;

/// More hops than this are a loop.
const HOPS: usize = 16;

/// A packet that did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Where it was, last.
    pub way: Vec<String>,
    /// Why it went no further.
    pub reason: String,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.way.join(" > "), self.reason)
    }
}

/// One packet under way.
struct Packet<'a> {
    world: &'a World,
    at: &'a str,
    destination: Ipv4Addr,
    /// The ends of the tunnel, while it is inside IP-in-IP: the near machine, and the far one's address.
    outer: Option<(&'a str, Ipv4Addr)>,
    way: Vec<String>,
}

/// What a hop came to.
enum Step<'a> {
    Arrived,
    On(&'a str),
}

/// Sends a packet from a pod of `from` to `destination`, and tells its way: `n1`, `n1 in tunl0`, `tor`, `n2`.
///
/// # Errors
/// [`Dropped`], and where.
pub fn trace(world: &World, from: &str, destination: Ipv4Addr) -> Result<Vec<String>, Dropped> {
    let Some((from, _)) = world.machines.get_key_value(from) else {
        return Err(Dropped { way: vec![from.to_owned()], reason: "this machine is off".to_owned() });
    };
    let mut packet = Packet { world, at: from, destination, outer: None, way: Vec::new() };
    for _ in 0..HOPS {
        packet.way.push(match packet.outer {
            Some(_) => format!("{} in {TUNNEL_DEVICE}", packet.at),
            None => packet.at.to_owned(),
        });
        match packet.hop() {
            Ok(Step::Arrived) => return Ok(packet.way),
            Ok(Step::On(next)) => packet.at = next,
            Err(reason) => return Err(Dropped { way: packet.way, reason }),
        }
    }
    Err(Dropped { way: packet.way, reason: "it goes in circles".to_owned() })
}

impl<'a> Packet<'a> {
    fn hop(&mut self) -> Result<Step<'a>, String> {
        let machine = self.world.machines.get(self.at).ok_or("this machine is off")?;
        let towards = self.outer.map_or(self.destination, |(_, far)| far);
        if machine.has_address(towards) {
            return self.receive(machine);
        }
        if !machine.forwarding {
            return Err("it does not forward".to_owned());
        }
        let route = machine.lookup(towards).ok_or_else(|| format!("no route to {towards}"))?;
        let Target::Hops(hops) = &route.target else { return Err(format!("{} is a blackhole", route.key)) };
        let hop = hops.first().ok_or("a route without hops")?;
        let device = machine.devices.get(&hop.device).ok_or("the route's device is gone")?;
        let name = &device.link.name;
        if !device.link.up {
            return Err(format!("{name} is down"));
        }
        match (&device.kind, hop.gateway, self.outer) {
            (Kind::Veth(addresses), None, None) if addresses.contains(&towards) => Ok(Step::Arrived),
            (Kind::Veth(_), ..) => Err(format!("the pod behind {name} does not have {towards}")),
            (Kind::Tunnel, Some(IpAddr::V4(far)), None) => {
                self.outer = Some((self.at, far));
                Ok(Step::On(self.at))
            }
            (Kind::Tunnel, ..) => Err(format!("the way to {towards} leads into {name} again")),
            (Kind::Wire(segment), gateway, _) => {
                let next = match gateway {
                    Some(IpAddr::V4(gateway)) => gateway,
                    _ => towards,
                };
                self.neighbour(*segment, next).map(Step::On)
            }
            (Kind::Loopback, ..) => Err("it leads to lo".to_owned()),
        }
    }

    /// The packet is for this machine: it is taken out of the tunnel, or it has arrived.
    fn receive(&mut self, machine: &Machine) -> Result<Step<'a>, String> {
        let Some((sender, _)) = self.outer.take() else { return Ok(Step::Arrived) };
        let source = self.world.machines.get(sender).and_then(Machine::address).ok_or("the sender is off")?;
        if !machine.takes_ipip_of(source) {
            return Err(format!("its ruleset takes no IP-in-IP of {sender}"));
        }
        let tunnel = machine.device(TUNNEL_DEVICE).map(|device| &device.link);
        match tunnel.is_some_and(|link| link.up && !link.addresses.is_empty()) {
            true => Ok(Step::On(self.at)),
            false => Err(format!("{TUNNEL_DEVICE} does not take IP-in-IP: {tunnel:?}")),
        }
    }

    fn neighbour(&self, segment: Segment, address: Ipv4Addr) -> Result<&'a str, String> {
        let answers = |machine: &Machine| {
            let wires = machine
                .devices
                .values()
                .filter(|device| device.kind == Kind::Wire(segment) && device.link.up);
            wires.flat_map(|device| &device.link.addresses).any(|net| net.addr() == address)
        };
        let found = self.world.machines.iter().find(|(_, machine)| answers(machine));
        found
            .map(|(name, _)| name.as_str())
            .ok_or_else(|| format!("nobody answers for {address} on the wire"))
    }
}
