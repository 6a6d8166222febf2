//! What everything should look like, from the stored objects and the pods alone: written plainly, and without a line of
//! the code that it judges.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use manx_felix::{Protocol, Target};
use manx_ipam::audit;
use manx_model::{
    AffinitySpec, AllocationAttribute, BlockSpec, HandleSpec, Kind, Object, reserve_handle, tunnel_handle,
    veth_name,
};
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, Node};
use crate::kubelet::{NAMESPACE, NETWORK};
use crate::machine::{Ipip, Machine};
use crate::tor;

/// Everything that is not as it should be in a cluster that has come to rest.
pub async fn findings(cluster: &Cluster) -> Vec<String> {
    let objects = cluster.objects().await;
    let truth = Truth::read(&objects);
    let mut found = cluster.net.world().violations.clone();
    found.extend(cluster.unreachable());
    for (name, node) in &cluster.nodes {
        found.extend(not_running(name, node));
        found.extend(truth.wrong_routes(cluster, name, node));
        found.extend(truth.wrong_tunnel(cluster, name));
        found.extend(truth.wrong_ruleset(cluster, name));
    }
    found.extend(truth.wrong_addresses(cluster));
    found.extend(audit(&truth.blocks, &truth.affinities, &truth.handles).iter().map(ToString::to_string));
    found
}

fn not_running(name: &str, node: &Node) -> Vec<String> {
    let pods = node.kubelet.pods().into_iter().filter(|(_, sandbox)| sandbox.is_none());
    let waiting =
        pods.map(|(pod, _)| format!("{name}: {pod} has no network: {:?}", node.kubelet.last_error(&pod)));
    let leaving = node.kubelet.leaving().into_iter().map(|pod| format!("{name}: cannot leave: {pod}"));
    waiting.chain(leaving).collect()
}

/// The stored objects.
struct Truth {
    /// CIDR and mode.
    pools: Vec<(IpNet, String)>,
    /// CIDRs of pools whose traffic to the world outside is translated.
    translated: Vec<IpNet>,
    /// By node: its address, and the tunnel address that it published.
    nodes: BTreeMap<String, (Ipv4Net, Option<Ipv4Addr>)>,
    blocks: Vec<BlockSpec>,
    affinities: Vec<AffinitySpec>,
    handles: Vec<HandleSpec>,
}

impl Truth {
    fn read(objects: &[Object]) -> Self {
        let of = |kind: Kind| objects.iter().filter(move |object| object.kind == kind);
        let text = |object: &Object, field: &str| object.spec[field].as_str().unwrap_or_default().to_owned();
        let pools = of(Kind::IPPool)
            .filter_map(|pool| Some((text(pool, "cidr").parse().ok()?, text(pool, "ipipMode"))));
        let nodes = of(Kind::Node).filter_map(|node| {
            let said = |key: &str| node.metadata.annotations.get(&format!("projectcalico.org/{key}"));
            let address = said("IPv4Address")?.parse().ok()?;
            let tunnel = said("IPv4IPIPTunnelAddr").and_then(|text| text.parse().ok());
            Some((node.name().to_owned(), (address, tunnel)))
        });
        let translated = of(Kind::IPPool)
            .filter(|pool| pool.spec["natOutgoing"] == true)
            .filter_map(|pool| text(pool, "cidr").parse().ok());
        Self {
            pools: pools.collect(),
            translated: translated.collect(),
            nodes: nodes.collect(),
            blocks: specs(of(Kind::IPAMBlock)),
            affinities: specs(of(Kind::BlockAffinity)),
            handles: specs(of(Kind::IPAMHandle)),
        }
    }

    /// The tunnel is wanted by some pool.
    fn ipip(&self) -> bool {
        self.pools.iter().any(|(_, mode)| mode == "Always" || mode == "CrossSubnet")
    }

    fn mode(&self, block: IpNet) -> &str {
        self.pools.iter().find(|(cidr, _)| cidr.contains(&block)).map_or("Never", |(_, mode)| mode)
    }

    fn wrong_routes(&self, cluster: &Cluster, name: &str, node: &Node) -> Vec<String> {
        let world = cluster.net.world();
        let Some(machine) = world.machines.get(name) else { return vec![format!("{name} is off")] };
        let (wanted, present) = (self.routes(name, node, machine), routes_of(machine));
        let missing = wanted.difference(&present).map(|route| format!("{name}: missing: {route}"));
        let surplus = present.difference(&wanted).map(|route| format!("{name}: too much: {route}"));
        missing.chain(surplus).collect()
    }

    fn routes(&self, name: &str, node: &Node, machine: &Machine) -> BTreeSet<String> {
        let pods = node.kubelet.pods().into_iter().filter_map(|(pod, sandbox)| Some((pod, sandbox?)));
        let mut routes: BTreeSet<String> = pods
            .map(|(pod, sandbox)| {
                format!("{}/32 dev {}", sandbox.address, veth_name("cali", NAMESPACE, &pod))
            })
            .collect();
        for affinity in self.affinities.iter().filter(|affinity| affinity.deleted != "true") {
            let (owner, block) = (affinity.node.as_str(), affinity.cidr);
            if owner == name {
                routes.insert(format!("blackhole {block}"));
            } else {
                routes.extend(self.way(block, owner, node, machine));
            }
        }
        let borrowed = self.borrowed().into_iter().filter(|(borrower, _)| borrower != name);
        routes.extend(borrowed.filter_map(|(borrower, address)| {
            self.way(Ipv4Net::from(address).into(), &borrower, node, machine)
        }));
        routes
    }

    /// The route on `node` to what another node has, as that node's address and tunnel are published.
    fn way(&self, to: IpNet, other: &str, node: &Node, machine: &Machine) -> Option<String> {
        let (address, tunnel) = self.nodes.get(other)?;
        let can = machine.ipip == Ipip::Loadable && tunnel.is_some();
        let near = node.address.trunc().contains(&address.addr());
        let via = address.addr();
        Some(match self.mode(to) {
            "Always" if can => format!("{to} via {via} dev tunl0 onlink"),
            "CrossSubnet" if can && !near => format!("{to} via {via} dev tunl0 onlink"),
            _ if near => format!("{to} via {via} dev eth0"),
            _ => format!("{to} via {} dev eth0", tor::address_in(node.address.addr().octets()[2])),
        })
    }

    /// What nodes hold in blocks of others, as borrower and address.
    fn borrowed(&self) -> Vec<(String, Ipv4Addr)> {
        let all = self.blocks.iter().flat_map(|block| {
            let owner = block.affinity.as_deref().and_then(|owner| owner.strip_prefix("host:"));
            let holders = allocations(block)
                .into_iter()
                .filter_map(|(attribute, address)| Some((attribute.secondary.get("node")?.clone(), address)));
            holders.filter(move |(holder, _)| Some(holder.as_str()) != owner).collect::<Vec<_>>()
        });
        all.collect()
    }

    fn wrong_tunnel(&self, cluster: &Cluster, name: &str) -> Vec<String> {
        let world = cluster.net.world();
        let Some(machine) = world.machines.get(name) else { return Vec::new() };
        let wanted = self.ipip() && machine.ipip == Ipip::Loadable;
        let published = self.nodes.get(name).and_then(|(_, tunnel)| *tunnel);
        let link = machine.device("tunl0").map(|device| &device.link);
        let held = self.held().get(&tunnel_handle(&name.parse().expect("a node name"))).copied();
        let mut wrong = Vec::new();
        if published.is_some() != wanted {
            wrong.push(format!("{name}: published tunnel address {published:?}, and wanted is {wanted}"));
        }
        if held.is_some() != self.ipip() {
            wrong.push(format!("{name}: IPAM holds {held:?} for the tunnel, and wanted is {}", self.ipip()));
        }
        // Without an address it takes nothing, and nobody can tell whose it is.
        let up = link.filter(|link| link.up && !link.addresses.is_empty()).map(|link| link.addresses.clone());
        let should = wanted.then(|| held.map(Ipv4Net::from).into_iter().collect::<Vec<_>>());
        if up != should || (wanted && published != held) {
            wrong.push(format!("{name}: tunl0 has {up:?}, published is {published:?}, IPAM holds {held:?}"));
        }
        wrong
    }

    /// The table of nftables: the three lines that matter, and who is in its sets.
    fn wrong_ruleset(&self, cluster: &Cluster, name: &str) -> Vec<String> {
        let world = cluster.net.world();
        let Some(machine) = world.machines.get(name).filter(|machine| machine.nftables) else {
            return Vec::new();
        };
        let Some(found) = &machine.ruleset else { return vec![format!("{name}: it has no ruleset")] };
        let text = found.ruleset.to_string();
        let lines = [
            "iifname \"cali*\" ip protocol 4 counter drop",
            "ip protocol 4 ip saddr != @nodes counter drop",
            "ip saddr @nat-pools ip daddr != @pools masquerade fully-random",
        ];
        let missing = lines.iter().filter(|line| !text.contains(*line));
        let mut wrong: Vec<String> = missing.map(|line| format!("{name}: no rule {line}")).collect();
        let nodes: BTreeSet<u32> = self.nodes.values().map(|(net, _)| net.addr().to_bits()).collect();
        let pools: Vec<IpNet> = self.pools.iter().map(|(cidr, _)| *cidr).collect();
        for (set, expected) in [
            ("nodes", nodes.into_iter().map(|node| (node, node)).collect()),
            ("pools", bounds(&pools)),
            ("nat-pools", bounds(&self.translated)),
        ] {
            let present = found.ruleset.sets.get(set).map(|set| set.ranges().to_vec()).unwrap_or_default();
            let present = present.into_iter().map(|(first, last)| (first.to_bits(), last.to_bits()));
            if present.collect::<Vec<_>>() != joined(expected) {
                wrong.push(format!("{name}: the set {set} is wrong: {text}"));
            }
        }
        wrong.extend(found.altered.then(|| format!("{name}: its ruleset is altered")));
        wrong
    }

    /// Addresses by handle; one handle with several is told by [`Self::wrong_addresses`].
    fn held(&self) -> BTreeMap<String, Ipv4Addr> {
        self.allocations().into_iter().collect()
    }

    fn allocations(&self) -> Vec<(String, Ipv4Addr)> {
        let held = self.blocks.iter().flat_map(allocations);
        held.map(|(attribute, address)| (attribute.handle_id.clone().unwrap_or_default(), address)).collect()
    }

    /// What a node that exists may hold back: one address in one block of eight, in the pool that all have in common.
    fn reserve(&self, name: &str) -> Option<(String, Ipv4Addr)> {
        let handle = reserve_handle(&name.parse().expect("a node name"));
        self.allocations().into_iter().find(|(holder, _)| *holder == handle)
    }

    /// Who holds an address, against who should.
    fn wrong_addresses(&self, cluster: &Cluster) -> Vec<String> {
        let mut wanted = BTreeSet::new();
        for (name, node) in &cluster.nodes {
            let sandboxes = node.kubelet.pods().into_values().flatten();
            wanted.extend(
                sandboxes.map(|sandbox| (format!("{NETWORK}.{}", sandbox.container), sandbox.address)),
            );
            let tunnel = tunnel_handle(&name.parse().expect("a node name"));
            wanted.extend(self.held().get(&tunnel).map(|address| (tunnel.clone(), *address)));
            wanted.extend(self.reserve(name));
        }
        let list = self.allocations();
        let present: BTreeSet<(String, Ipv4Addr)> = list.iter().cloned().collect();
        let addresses: BTreeSet<Ipv4Addr> = wanted.iter().map(|(_, address)| *address).collect();
        let twice =
            (addresses.len() != wanted.len()).then(|| format!("an address is in use twice: {wanted:?}"));
        let lost = wanted.difference(&present).map(|holder| format!("in use, and not IPAM's: {holder:?}"));
        let leaked = present.difference(&wanted).map(|holder| format!("leaked: {holder:?}"));
        let stored = self.handles.iter().map(|handle| handle.handle_id.clone());
        let handles: BTreeSet<String> = list.iter().map(|(handle, _)| handle.clone()).collect();
        let dangling =
            stored.filter(|handle| !handles.contains(handle)).map(|handle| format!("dangling: {handle}"));
        twice.into_iter().chain(lost).chain(leaked).chain(dangling).collect()
    }
}

fn specs<'a, T: DeserializeOwned>(objects: impl Iterator<Item = &'a Object>) -> Vec<T> {
    objects.map(|object| serde_json::from_value(object.spec.clone()).expect("a stored spec")).collect()
}

/// What is held in a block, and the attribute by which.
fn allocations(block: &BlockSpec) -> Vec<(&AllocationAttribute, Ipv4Addr)> {
    let IpNet::V4(cidr) = block.cidr else { return Vec::new() };
    let held = block.allocations.iter().enumerate().filter_map(|(ordinal, attribute)| {
        let attribute = block.attributes.get((*attribute)?)?;
        Some((attribute, Ipv4Addr::from(u32::from(cidr.addr()) + ordinal as u32)))
    });
    held.collect()
}

/// The routes of protocol 77, as text.
fn routes_of(machine: &Machine) -> BTreeSet<String> {
    let ours = machine.routes.iter().filter(|route| route.protocol == Protocol(77));
    ours.map(|route| match &route.target {
        Target::Hops(hops) => {
            let mut text = route.key.to_string();
            for hop in hops {
                let device = machine.devices.get(&hop.device).map_or("?", |device| &device.link.name);
                let via = match hop.gateway {
                    Some(IpAddr::V4(gateway)) => format!(" via {gateway}"),
                    _ => String::new(),
                };
                let onlink = if hop.onlink { " onlink" } else { "" };
                text += &format!("{via} dev {device}{onlink}");
            }
            text
        }
        _ => format!("blackhole {}", route.key),
    })
    .collect()
}

/// The first and the last address of each.
fn bounds(nets: &[IpNet]) -> Vec<(u32, u32)> {
    let of = |net: &IpNet| match net {
        IpNet::V4(net) => Some((net.network().to_bits(), net.broadcast().to_bits())),
        IpNet::V6(_) => None,
    };
    nets.iter().filter_map(of).collect()
}

/// Neighbours become one range. (Nothing here overlaps.)
fn joined(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut().filter(|(_, end)| end.checked_add(1) == Some(first)) {
            Some((_, end)) => *end = last,
            None => joined.push((first, last)),
        }
    }
    joined
}
