//! Which objects of a kind somebody wants: what a datastore can select at its end, so that the rest never travels.

use manx_model::{Kind, NodeName, Object};

/// Which objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Only {
    /// All of them.
    All,
    /// Those that concern this node: its own Node, its BlockAffinities and CalicoNodeStatuses, the pods that run there.
    /// Of the other kinds, which belong to no node, all.
    ///
    /// A *watch* of BlockAffinities may go by Calico's labels, and so miss those of before Calico 3.31 that nobody has
    /// labelled yet; a *list* does not.
    Node(NodeName),
    /// The one with this key.
    Key(String),
}

impl Only {
    /// Whether `object` is one of them.
    pub fn selects(&self, object: &Object) -> bool {
        match self {
            Self::All => true,
            Self::Key(key) => *key == object.key(),
            Self::Node(node) => match object.kind {
                Kind::Node => object.name() == node.as_str(),
                Kind::BlockAffinity => object.spec["node"] == node.as_str(),
                // One that names no node is everybody's: somebody must say what is wrong with it.
                Kind::CalicoNodeStatus => {
                    object.spec["node"].as_str().is_none_or(|asked| asked == node.as_str())
                }
                Kind::Pod => object.spec["nodeName"] == node.as_str(),
                _ => true,
            },
        }
    }
}
