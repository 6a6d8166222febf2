//! nftables over nfnetlink, without a program and without a library in C: the little of its language that our table needs,
//! written and read back.
//!
//! A table is replaced whole, in one transaction (a batch): the kernel carries out all of it between two packets, or
//! nothing. What it holds is read back into the same types, so that a difference is found by comparison, whoever
//! made it. Numbers are those of `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h` and
//! `linux/netfilter/nf_nat.h`.
//!
//! From below: [`attributes`] write and read; [`expression`] is the kernel's language; [`rule`] translates; [`message`] has
//! the messages, [`read`] and [`mod@write`] exchange them.

mod attributes;
mod expression;
mod message;
mod read;
mod rule;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use manx_felix::{FoundRuleset, KernelError, Ruleset, TABLE};
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use crate::error::{EINVAL, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT, failed, refuse, refused};
use crate::socket::{Ports, Refusal, Socket, Sockets};

pub(crate) use watch::Watch;

/// nftables of one network namespace.
pub(crate) struct Nft {
    sockets: Sockets,
    /// What was read last, and the generation of nftables at which that was so.
    last: Mutex<Option<(u32, Option<FoundRuleset>)>>,
}

impl Nft {
    pub(crate) fn new(netns: OwnedFd) -> Self {
        Self { sockets: Sockets::new(netns, NETLINK_NETFILTER), last: Mutex::default() }
    }

    pub(crate) fn ports(&self) -> Ports {
        self.sockets.ports()
    }

    /// Reads our table. As long as nobody committed anything in nftables, one question is asked.
    pub(crate) fn read(&self) -> Result<Option<FoundRuleset>, KernelError> {
        let action = format!("reading the nftables table {TABLE}");
        self.with(&action, |socket| {
            let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let (generation, found) = read::table(socket, last).map_err(|refusal| {
                match [EINVAL, EOPNOTSUPP].contains(&refusal.errno) {
                    true => without_nftables(&action, refusal),
                    false => refused(&action, refusal),
                }
            })?;
            let now = Some((generation, found.clone()));
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = now;
            Ok(found)
        })
    }

    /// Puts this in place of our table.
    pub(crate) fn write(&self, ruleset: Option<&Ruleset>) -> Result<(), KernelError> {
        let action = match ruleset {
            Some(_) => format!("writing the nftables table {TABLE}"),
            None => format!("deleting the nftables table {TABLE}"),
        };
        self.with(&action, |socket| {
            write::table(socket, ruleset).map_err(|refusal| match refusal.errno {
                // What it does not know is not there: a kind of chain or of expression.
                ENOENT | EOPNOTSUPP => without_nftables(&action, refusal),
                _ => refused(&action, refusal),
            })
        })
    }

    fn with<T>(
        &self,
        action: &str,
        work: impl FnOnce(&mut Socket) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        self.sockets.with(work).unwrap_or_else(|error| match error.raw_os_error() {
            Some(errno @ EPROTONOSUPPORT) => Err(without_nftables(action, Refusal { errno, words: None })),
            _ => Err(failed(action, &error)),
        })
    }
}

/// The kernel lacks nftables, or a part of it.
fn without_nftables(action: &str, refusal: Refusal) -> KernelError {
    let reason = "this kernel has no nftables, or not all of it: load the modules nf_tables, nft_chain_nat, nft_masq \
        and nft_nat (CONFIG_NF_TABLES, CONFIG_NF_TABLES_IPV4, CONFIG_NFT_NAT, CONFIG_NFT_MASQ). Until then pods keep \
        their own addresses towards the world outside, and protocol 4 is taken from anybody; routes work";
    KernelError { errno: Some(refusal.errno), ..refuse(action, reason) }
}
