//! What this node originates: the blocks that IPAM gave it, and its podCIDRs while its pods live in them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use tokio::sync::watch;

use crate::addresses::Told;
use crate::latest;
use crate::publish::Publication;

/// Puts it together from who knows what.
pub struct Territory {
    /// `USE_POD_CIDR`: the podCIDRs are this node's even while no pod lives in them.
    pub always: bool,
    /// Our blocks.
    pub blocks: watch::Receiver<BTreeSet<IpNet>>,
    /// Our addresses in blocks of others.
    pub borrowed: watch::Receiver<BTreeSet<IpNet>>,
    /// The podCIDRs.
    pub cidrs: watch::Receiver<Vec<IpNet>>,
    /// The addresses that our pods have of podCIDRs.
    pub pods: watch::Receiver<BTreeSet<IpAddr>>,
    /// Told of all.
    pub told: Told,
    /// Where the Node says which podCIDRs are in use.
    pub publication: watch::Sender<Publication>,
}

impl Territory {
    /// Tells it now, and whenever it changes.
    pub async fn run(mut self) {
        loop {
            self.tell();
            let changed = tokio::select! {
                changed = self.blocks.changed() => changed,
                changed = self.borrowed.changed() => changed,
                changed = self.cidrs.changed() => changed,
                changed = self.pods.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Tells it now.
    pub fn tell(&mut self) {
        let pods = self.pods.borrow_and_update().clone();
        let in_use = self.always || !pods.is_empty();
        let known = self.cidrs.borrow_and_update().clone();
        let cidrs = if in_use { known } else { Vec::new() };
        // Of a podCIDR that the Node had once, and has no more.
        let strays = pods.into_iter().filter(|address| !cidrs.iter().any(|cidr| cidr.contains(address)));
        let borrowed =
            self.borrowed.borrow_and_update().iter().copied().chain(strays.map(IpNet::from)).collect();
        let blocks = self.blocks.borrow_and_update().iter().copied().chain(cidrs.clone()).collect();
        latest::set(&self.told.blocks, blocks);
        latest::set(&self.told.borrowed, borrowed);
        self.publication.send_if_modified(|publication| {
            std::mem::replace(&mut publication.pod_cidrs, cidrs.clone()) != cidrs
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node with the podCIDR 10.1.0.0/24, a block and a borrowed address originates; and whether it says so.
    fn told(always: bool, pods: &[&str]) -> (Vec<String>, Vec<String>, bool) {
        let set = |texts: &[&str]| watch::channel(texts.iter().map(|text| text.parse().unwrap()).collect()).1;
        let (told, address) = (Told::default(), "10.0.0.5/24".parse().unwrap());
        let publication = Publication { address, tunnel: None, asn: None, pod_cidrs: Vec::new() };
        let publication = watch::Sender::new(publication);
        let pods = pods.iter().map(|text| text.parse().unwrap()).collect();
        Territory {
            always,
            blocks: set(&["192.168.0.0/26"]),
            borrowed: set(&["192.168.9.9/32"]),
            cidrs: watch::channel(vec!["10.1.0.0/24".parse().unwrap()]).1,
            pods: watch::channel(pods).1,
            told: told.clone(),
            publication: publication.clone(),
        }
        .tell();
        let texts =
            |set: &watch::Sender<BTreeSet<IpNet>>| set.borrow().iter().map(ToString::to_string).collect();
        let says = !publication.borrow().pod_cidrs.is_empty();
        (texts(&told.blocks), texts(&told.borrowed), says)
    }

    #[test]
    fn a_pod_cidr_is_originated_while_it_is_used_or_is_to_be() {
        let nothing = (vec!["192.168.0.0/26".to_owned()], vec!["192.168.9.9/32".to_owned()], false);
        assert_eq!(told(false, &[]), nothing);
        let used = (vec!["10.1.0.0/24".to_owned(), "192.168.0.0/26".to_owned()], nothing.1, true);
        assert_eq!(told(false, &["10.1.0.2"]), used);
        assert_eq!(told(true, &[]), used);
    }

    #[test]
    fn a_pod_of_a_pod_cidr_that_is_the_nodes_no_more_is_announced_by_itself() {
        let (blocks, borrowed, says) = told(false, &["10.7.0.2"]);
        assert!(says && blocks.len() == 2);
        assert_eq!(borrowed, ["10.7.0.2/32", "192.168.9.9/32"]);
    }
}
