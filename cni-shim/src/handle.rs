//! The IPAM handle of a pod's addresses.

/// `<network>.<container id>` in lower case, as Calico writes it: the handle under which the addresses of one container
/// in one network are held. Handles are names of Kubernetes objects, hence the lower case.
pub fn handle_id(network: &str, container_id: &str) -> String {
    format!("{network}.{container_id}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_the_network_and_the_container_in_lower_case() {
        assert_eq!(handle_id("k8s-pod-network", "4F2a"), "k8s-pod-network.4f2a");
    }
}
