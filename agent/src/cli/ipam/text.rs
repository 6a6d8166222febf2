//! The tables of `manx ipam`.

use std::fmt::Write as _;
use std::net::IpAddr;

use manx_ipam::{BlockUsage, Holder, Usage};
use manx_model::RESERVE;

/// One line for each pool.
pub(super) fn pools(usage: &Usage) -> String {
    let mut rows = vec![["POOL", "CIDR", "ADDRESSES", "IN USE", "", "BORROWED", "BLOCKS"].map(str::to_owned)];
    rows.extend(usage.pools.iter().map(|pool| {
        [
            pool.name.clone(),
            pool.cidr.to_string(),
            pool.size.to_string(),
            pool.in_use().to_string(),
            format!("{:.1} %", pool.percent()),
            pool.borrowed().to_string(),
            pool.blocks.len().to_string(),
        ]
    }));
    let mut page = table(&rows);
    if usage.pools.is_empty() {
        page += "There is no IPPool that can be used.\n";
    }
    for invalid in &usage.unreadable {
        let _ = writeln!(page, "{invalid}");
    }
    page
}

/// One line for each block, if they are asked for; those of no pool in any case.
pub(super) fn blocks(usage: &Usage, all: bool) -> String {
    let mut rows = vec![["BLOCK", "OWNER", "IN USE", "", "FREE", "COOLING", "BORROWED"].map(str::to_owned)];
    let of_pools = usage.pools.iter().flat_map(|pool| &pool.blocks).filter(|_| all);
    rows.extend(of_pools.chain(&usage.outside).map(|block| {
        [
            block.cidr.to_string(),
            block.owner.clone().unwrap_or_else(|| "nobody".to_owned()),
            block.held.len().to_string(),
            format!("{:.1} %", block.percent()),
            block.free.to_string(),
            block.cooling.to_string(),
            block.borrowed().to_string(),
        ]
    }));
    let mut page = if rows.len() > 1 { format!("\n{}", table(&rows)) } else { String::new() };
    if !usage.outside.is_empty() {
        let outside: Vec<String> = usage.outside.iter().map(|block| block.cidr.to_string()).collect();
        let _ = writeln!(page, "In no pool: {}", outside.join(", "));
    }
    page
}

/// One line for each address that is held, if they are asked for.
pub(super) fn holders(usage: &Usage, all: bool) -> String {
    if !all {
        return String::new();
    }
    let mut rows = vec![["ADDRESS", "HOLDER", "NODE", "BLOCK", ""].map(str::to_owned)];
    for block in every_block(usage) {
        rows.extend(block.held.iter().map(|held| {
            [
                held.address.to_string(),
                holder(held),
                held.node.clone().unwrap_or_else(|| "-".to_owned()),
                block.cidr.to_string(),
                if held.borrowed { "borrowed".to_owned() } else { String::new() },
            ]
        }));
    }
    format!("\n{}", table(&rows))
}

/// Everything about one address.
pub(super) fn address(usage: &Usage, address: IpAddr) -> String {
    let pool = usage.pools.iter().find(|pool| pool.cidr.contains(&address));
    let pool =
        pool.map_or("of no pool".to_owned(), |pool| format!("of IPPool {} ({})", pool.name, pool.cidr));
    let Some(block) = every_block(usage).find(|block| block.cidr.contains(&address)) else {
        return format!("{address} {pool}: in no block, and so held by nobody.\n");
    };
    let owner = block.owner.as_deref().unwrap_or("nobody");
    let mut page = format!("{address} {pool}, in block {} of {owner}: ", block.cidr);
    match block.held.iter().find(|held| held.address == address) {
        None => page += "held by nobody.\n",
        Some(held) => {
            let _ =
                writeln!(page, "held by {}{}.", holder(held), if held.borrowed { ", borrowed" } else { "" });
            let _ = writeln!(page, "  handle: {}", held.handle);
            for (key, value) in &held.attributes {
                let _ = writeln!(page, "  {key}: {value}");
            }
        }
    }
    page
}

/// How it stands, in one line.
pub(super) fn verdict(found: usize, left: usize) -> String {
    match (found, left) {
        (0, _) => "Nothing is wrong.\n".to_owned(),
        (found, 0) => format!("{found} wrong, all mended.\n"),
        (found, left) if found == left => format!("{found} wrong.\n"),
        (found, left) => format!("{found} wrong, {left} left.\n"),
    }
}

fn every_block(usage: &Usage) -> impl Iterator<Item = &BlockUsage> {
    usage.pools.iter().flat_map(|pool| &pool.blocks).chain(&usage.outside)
}

fn holder(held: &Holder) -> String {
    let of = |key: &str| held.attributes.get(key);
    match (of("namespace"), of("pod"), of("type")) {
        (Some(namespace), Some(pod), _) => format!("pod {namespace}/{pod}"),
        (_, _, Some(kind)) if kind == RESERVE => "reserve for an outage".to_owned(),
        (_, _, Some(kind)) => kind.clone(),
        _ => held.handle.clone(),
    }
}

/// Columns, two spaces apart; numbers to the right.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let is_number =
        |text: &str| text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(['.', ':', '/']);
    let right: [bool; N] = std::array::from_fn(|column| {
        rows.len() > 1 && rows[1..].iter().all(|row| is_number(&row[column]) || row[column].ends_with(" %"))
    });
    let mut page = String::new();
    for row in rows {
        let cells = row.iter().enumerate().map(|(column, text)| match right[column] {
            true => format!("{text:>0$}", widths[column]),
            false => format!("{text:<0$}", widths[column]),
        });
        let line: Vec<String> = cells.collect();
        let _ = writeln!(page, "{}", line.join("  ").trim_end());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use manx_ipam::PoolUsage;

    fn usage() -> Usage {
        let held = |address: &str, pod: &str, borrowed: bool| Holder {
            address: address.parse().unwrap(),
            handle: format!("k8s-pod-network.{pod}"),
            node: Some("n1".into()),
            borrowed,
            attributes: [("namespace", "default"), ("pod", pod)]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
        };
        let block = BlockUsage {
            cidr: "10.0.0.0/26".parse().unwrap(),
            owner: Some("n2".into()),
            size: 64,
            free: 62,
            cooling: 0,
            held: vec![held("10.0.0.1", "web", true), held("10.0.0.2", "db", true)],
        };
        let pool = PoolUsage {
            name: "p".into(),
            cidr: "10.0.0.0/24".parse().unwrap(),
            size: 256,
            blocks: vec![block],
        };
        Usage { pools: vec![pool], ..Usage::default() }
    }

    #[test]
    fn an_operator_sees_how_full_the_pools_are() {
        assert_eq!(
            pools(&usage()),
            "POOL  CIDR         ADDRESSES  IN USE         BORROWED  BLOCKS\n\
             p     10.0.0.0/24        256       2  0.8 %         2       1\n"
        );
        assert!(blocks(&usage(), true).contains("10.0.0.0/26  n2"));
        assert_eq!(blocks(&usage(), false), "");
    }

    #[test]
    fn an_operator_finds_out_who_holds_an_address() {
        let page = address(&usage(), "10.0.0.2".parse().unwrap());
        assert!(page.starts_with("10.0.0.2 of IPPool p (10.0.0.0/24), in block 10.0.0.0/26 of n2: held by pod default/db, borrowed.\n"), "{page}");
        assert!(address(&usage(), "10.0.0.9".parse().unwrap()).contains("held by nobody"));
        assert!(address(&usage(), "10.9.0.9".parse().unwrap()).contains("of no pool: in no block"));
        assert!(holders(&usage(), true).contains("pod default/web"));
    }

    #[test]
    fn an_operator_sees_what_is_held_back_for_what() {
        let mut usage = usage();
        let held = &mut usage.pools[0].blocks[0].held[0];
        held.attributes = [("type".to_owned(), RESERVE.to_owned())].into();
        assert!(
            holders(&usage, true).contains("10.0.0.1  reserve for an outage"),
            "{}",
            holders(&usage, true)
        );
    }
}
