//! A status as a person reads it: what is wrong first, then what there is.

use std::fmt::Write;

use super::{Bgp, Peer, Status};

/// Renders a whole status.
pub fn render(status: &Status) -> String {
    let mut page = String::new();
    heading(&mut page, status);
    list(&mut page, "Problems", &status.problems);
    list(&mut page, "Without effect", &status.notices);
    let pools = status.pools.iter().map(|pool| {
        let disabled = if pool.disabled { "disabled" } else { "" };
        vec![
            pool.name.clone(),
            pool.cidr.clone(),
            format!("/{}", pool.block_size),
            pool.ipip_mode.clone(),
            disabled.into(),
        ]
    });
    table(&mut page, &["POOL", "CIDR", "BLOCKS", "IPIP", ""], pools);
    if let Some(bgp) = &status.bgp {
        speaker(&mut page, bgp);
    }
    let paths =
        status.paths.iter().map(|path| vec![path.prefix.clone(), path.route.clone(), path.reason.clone()]);
    table(&mut page, &["REMOTE PREFIX", "ROUTE", "WHY"], paths);
    let pods =
        status.pods.iter().map(|pod| vec![pod.addresses.join(" "), pod.device.clone(), pod.handle.clone()]);
    table(&mut page, &["POD ADDRESS", "DEVICE", "HANDLE"], pods);
    page
}

fn heading(page: &mut String, status: &Status) {
    let address = status.address.as_deref().unwrap_or("address not known yet");
    let ready = match &status.not_ready {
        _ if status.ready => "ready".to_owned(),
        Some(reason) => format!("not ready: {reason}"),
        None => "not ready".to_owned(),
    };
    let sync = if status.in_sync { "in sync" } else { "NOT in sync" };
    let kernel = if status.in_desired_state { "as it should be" } else { "NOT as it should be" };
    let tunnel = status.tunnel.as_deref().map_or("down".to_owned(), |address| format!("up, {address}"));
    let blocks = if status.blocks.is_empty() { "none".to_owned() } else { status.blocks.join(" ") };
    let rows = [
        ("Node", format!("{} ({address}), manx {}", status.node, status.version)),
        ("Agent", ready),
        ("Datastore", format!("{} ({sync})", status.datastore)),
        ("Kernel", format!("{kernel} ({} routes written since the start)", status.routes_written)),
        ("Tunnel", tunnel),
        ("Blocks", blocks),
        ("Pods", status.pods.len().to_string()),
    ];
    for (name, value) in rows {
        line(page, &format!("{name:<10} {value}"));
    }
}

fn speaker(page: &mut String, bgp: &Bgp) {
    let converged = if bgp.converged { "converged" } else { "not converged yet" };
    line(page, "");
    line(page, &format!("BGP: AS {}, router id {}, {}, {converged}", bgp.asn, bgp.router_id, bgp.listening));
    table(
        page,
        &["PEER", "ADDRESS", "AS", "STATE", "FOR", "RECEIVED", "SENT", "LAST ERROR"],
        bgp.peers.iter().map(peer),
    );
}

fn peer(peer: &Peer) -> Vec<String> {
    vec![
        peer.name.clone(),
        peer.address.clone(),
        peer.asn.to_string(),
        peer.state.clone(),
        duration(peer.seconds),
        match peer.stale {
            0 => peer.received.to_string(),
            stale => format!("{} ({stale} stale)", peer.received),
        },
        peer.sent.to_string(),
        peer.last_error.clone().unwrap_or_default(),
    ]
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

fn list(page: &mut String, title: &str, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    line(page, "");
    line(page, &format!("{title}:"));
    for text in texts {
        line(page, &format!("  - {text}"));
    }
}

/// A table with columns as wide as their widest cell; nothing at all without rows.
fn table(page: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let header: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    if rows.len() == 1 {
        return;
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    line(page, "");
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        line(page, cells.join("  ").trim_end());
    }
}

fn line(page: &mut String, text: &str) {
    writeln!(page, "{text}").expect("a String takes all text");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Pool, RemotePath};

    #[test]
    fn a_person_sees_what_is_wrong_before_the_tables() {
        let status = Status {
            node: "node1".into(),
            version: "0.1.0".into(),
            address: Some("172.171.5.95/24".into()),
            ready: true,
            datastore: "memory".into(),
            in_sync: true,
            in_desired_state: true,
            problems: vec!["routes: 10.0.0.0/26: no route to next hop 10.9.9.9".into()],
            pools: vec![Pool {
                name: "default-ipv4-ippool".into(),
                cidr: "192.168.0.0/16".into(),
                block_size: 26,
                ipip_mode: "Always".into(),
                disabled: false,
            }],
            paths: vec![RemotePath {
                prefix: "192.168.1.0/26".into(),
                route: "via 172.171.5.96 dev tunl0".into(),
                reason: "Always".into(),
            }],
            ..Status::default()
        };
        let page = render(&status);
        let expected = "\
Node       node1 (172.171.5.95/24), manx 0.1.0
Agent      ready
Datastore  memory (in sync)
Kernel     as it should be (0 routes written since the start)
Tunnel     down
Blocks     none
Pods       0

Problems:
  - routes: 10.0.0.0/26: no route to next hop 10.9.9.9

POOL                 CIDR            BLOCKS  IPIP
default-ipv4-ippool  192.168.0.0/16  /26     Always

REMOTE PREFIX   ROUTE                       WHY
192.168.1.0/26  via 172.171.5.96 dev tunl0  Always
";
        assert_eq!(page, expected);
    }
}
