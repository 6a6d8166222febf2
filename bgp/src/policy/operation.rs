//! What a filter changes about a route.

use manx_model::Asn;

use crate::rib::DEFAULT_LOCAL_PREF;
use crate::wire::{AnyCommunity, Attributes};

/// Calico's priorities are metrics of the kernel: the lower, the better. BGP has them as LOCAL_PREF, the higher the better:
/// priority p is LOCAL_PREF 2147483647 - p.
const WORST_PRIORITY: u32 = i32::MAX as u32;

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Adds a community, unless it is there.
    AddCommunity(AnyCommunity),
    /// Puts these before the AS_PATH, the first one foremost. Our own AS comes before them when the route leaves it.
    PrependAsPath(Vec<Asn>),
    /// Sets LOCAL_PREF to 2147483647 less this, at most 2147483647.
    SetPriority(u32),
}

impl Operation {
    /// Does it.
    pub fn apply(&self, attributes: &mut Attributes) {
        match self {
            Self::AddCommunity(community) => attributes.add_community(*community),
            Self::PrependAsPath(asns) => {
                for asn in asns.iter().rev() {
                    attributes.as_path = attributes.as_path.prepended(*asn);
                }
            }
            Self::SetPriority(priority) => {
                attributes.local_pref = Some(WORST_PRIORITY.saturating_sub(*priority));
            }
        }
    }
}

/// The priority that a route's LOCAL_PREF, or what stands for it, amounts to.
pub fn priority(attributes: &Attributes) -> u32 {
    WORST_PRIORITY.saturating_sub(attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF))
}
