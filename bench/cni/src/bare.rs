//! What the kernel alone takes for the same link, addresses, routes and parameters: the bare calls, made in this
//! process, without a plugin, an agent or an assignment of addresses.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use anyhow::Result;
use manx_felix::{Kernel as _, PodLink};
use manx_felix_linux::LinuxKernel;
use manx_lab::{Lab, netns};
use tokio::runtime::Runtime;

use crate::pods::Pod;

/// The name of these rows.
pub(crate) const KERNEL: &str = "kernel alone";
/// The name of the row for the start of our plugin.
pub(crate) const START: &str = "plugin alone";

/// The kernel of the other node.
pub(crate) struct Bare {
    runtime: Runtime,
    kernel: LinuxKernel,
}

impl Bare {
    /// Opens the kernel of `node1`.
    pub(crate) fn open(lab: &Lab) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let kernel = netns::within(&lab.netns("node1"), || {
            let _inside = runtime.enter();
            LinuxKernel::open()
        })??;
        Ok(Self { runtime, kernel })
    }

    /// Makes the pod's link.
    pub(crate) fn add(&self, pod: &Pod) -> Result<()> {
        let link = PodLink {
            host_device: device(pod),
            pod_device: "eth0".to_owned(),
            handle: pod.name.clone(),
            destinations: Vec::new(),
            queues: None,
            addresses: vec![IpAddr::V4(Ipv4Addr::from(0x0ac9_0000 + u32::from(pod.index)))],
            mtu: 1480,
            allow_ip_forwarding: false,
            pod_mac: None,
        };
        let netns = File::open(&pod.netns)?;
        self.runtime.block_on(self.kernel.attach(OwnedFd::from(netns).into(), &link))?;
        Ok(())
    }

    /// Takes it away.
    pub(crate) fn del(&self, pod: &Pod) -> Result<()> {
        Ok(self.runtime.block_on(self.kernel.detach(&device(pod), &pod.name))?)
    }
}

fn device(pod: &Pod) -> String {
    format!("bare{}", pod.index)
}
