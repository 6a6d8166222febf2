//! A set of IPv4 addresses, as ranges of which no two overlap or touch.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Addresses as ranges, both ends included, in order; no two overlap or touch. So each set of addresses has one form, and
/// the kernel, which refuses overlaps, takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet(Vec<(Ipv4Addr, Ipv4Addr)>);

impl AddressSet {
    /// The ranges, each with its first and its last address.
    pub fn ranges(&self) -> &[(Ipv4Addr, Ipv4Addr)] {
        &self.0
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&address))
    }

    /// The addresses that are in this or in `other`.
    pub fn union(&self, other: &Self) -> Self {
        self.0.iter().chain(&other.0).copied().collect()
    }
}

impl FromIterator<(Ipv4Addr, Ipv4Addr)> for AddressSet {
    /// Of ranges that may overlap; one whose first address is behind its last is empty.
    fn from_iter<T: IntoIterator<Item = (Ipv4Addr, Ipv4Addr)>>(ranges: T) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(Ipv4Addr, Ipv4Addr)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some((_, end)) if u64::from(first.to_bits()) <= u64::from(end.to_bits()) + 1 => {
                    *end = (*end).max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }
}

impl FromIterator<Ipv4Net> for AddressSet {
    fn from_iter<T: IntoIterator<Item = Ipv4Net>>(nets: T) -> Self {
        nets.into_iter().map(|net| (net.network(), net.broadcast())).collect()
    }
}

impl fmt::Display for AddressSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(nets: &[&str]) -> AddressSet {
        nets.iter().map(|net| net.parse::<Ipv4Net>().unwrap()).collect()
    }

    #[test]
    fn networks_that_overlap_or_touch_become_one_range() {
        for (nets, text) in [
            (&["10.0.0.0/24", "10.0.0.64/26"][..], "10.0.0.0-10.0.0.255"),
            (&["10.0.0.128/25", "10.0.1.0/25"], "10.0.0.128-10.0.1.127"),
            (&["10.0.0.1/32", "10.0.0.3/32"], "10.0.0.1, 10.0.0.3"),
            (
                &["255.255.255.255/32", "255.255.255.254/32", "0.0.0.0/32"],
                "0.0.0.0, 255.255.255.254-255.255.255.255",
            ),
            (&["0.0.0.0/0", "10.0.0.0/8"], "0.0.0.0-255.255.255.255"),
            (&[], ""),
        ] {
            assert_eq!(set(nets).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn an_address_is_in_the_set_if_it_is_in_one_of_the_ranges(
            ranges in proptest::collection::vec((0u32..40, 0u32..40), 0..8), address in 0u32..45,
        ) {
            let ranges: Vec<_> =
                ranges.into_iter().map(|(a, b)| (Ipv4Addr::from_bits(a), Ipv4Addr::from_bits(b))).collect();
            let address = Ipv4Addr::from_bits(address);
            let set: AddressSet = ranges.iter().copied().collect();
            let expected = ranges.iter().any(|(first, last)| (*first..=*last).contains(&address));
            prop_assert_eq!(set.contains(address), expected);
            let apart = |pair: &[(Ipv4Addr, Ipv4Addr)]| pair[0].1.to_bits() + 1 < pair[1].0.to_bits();
            prop_assert!(set.ranges().windows(2).all(apart), "{}", set);
        }
    }
}
