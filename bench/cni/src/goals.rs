//! What the project has set itself, as ratios to ptp + host-local in the same run and other limits.

use crate::store::Datastore;

/// A limit, on one side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// This much or less.
    AtMost(f64),
    /// This much or more.
    AtLeast(f64),
}

impl Goal {
    /// The goal, and whether it is met.
    pub(crate) fn judge(self, found: f64) -> String {
        let (sign, limit, met) = match self {
            Self::AtMost(limit) => ("<=", limit, found <= limit),
            Self::AtLeast(limit) => (">=", limit, found >= limit),
        };
        format!("{sign} {limit:<4} {}", if met { "met" } else { "MISSED" })
    }
}

/// The goals for one datastore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goals {
    /// ADD p50 one at a time, to the reference's.
    pub(crate) add: Goal,
    /// DEL p50 one at a time, to the reference's.
    pub(crate) del: Goal,
    /// ADDs per second many at once, to the reference's.
    pub(crate) adds: Goal,
    /// The API server's milliseconds of processor per ADD, many at once.
    pub(crate) api_server: Goal,
    /// The processor time of plugin and agent per ADD, to that of the bare calls and a start of the plugin.
    pub(crate) cpu: Goal,
}

/// ADD and DEL of two addresses, p50 one at a time, to one address.
pub(crate) const DUAL_STACK: Goal = Goal::AtMost(1.3);

impl Goals {
    /// Those of a datastore.
    pub(crate) fn of(datastore: Datastore) -> Self {
        let (add, del, adds, cpu) = match datastore {
            Datastore::File => (0.35, 0.3, 4.0, 2.5),
            Datastore::Kubernetes => (1.0, 0.8, 2.0, 4.0),
        };
        Self {
            add: Goal::AtMost(add),
            del: Goal::AtMost(del),
            adds: Goal::AtLeast(adds),
            api_server: Goal::AtMost(8.0),
            cpu: Goal::AtMost(cpu),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_up_to_its_limit_on_the_right_side() {
        assert_eq!(Goal::AtMost(0.35).judge(0.35), "<= 0.35 met");
        assert_eq!(Goal::AtMost(8.0).judge(8.1), "<= 8    MISSED");
        assert_eq!(Goal::AtLeast(4.0).judge(4.0), ">= 4    met");
        assert_eq!(Goal::AtLeast(4.0).judge(3.9), ">= 4    MISSED");
    }
}
