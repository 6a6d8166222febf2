use super::*;
use manx_model::IpipMode;

fn read(variables: &[(&str, &str)]) -> Result<Config, String> {
    let node = [("NODENAME", "n1")];
    let all = node.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::read(&Settings::from_environment(all)).map_err(|error| error.to_string())
}

#[test]
fn an_empty_environment_means_calicos_defaults() {
    let config = read(&[]).unwrap();
    assert_eq!(config.default_pool.cidr, Some("192.168.0.0/16".parse().unwrap()));
    assert_eq!((config.default_pool.block_size, config.default_pool.ipip), (26, IpipMode::Never));
    assert_eq!(config.address, AddressSource::Autodetect(Detection::FirstFound));
    assert_eq!((config.router_id, config.address_poll), (RouterId::Address, Duration::from_secs(60)));
    assert_eq!(
        (config.use_pod_cidr, config.shared_address_allowed, &config.default_pool6),
        (false, false, &None)
    );
    assert_eq!(config.felix, FelixEnvironment::default());
    assert!(config.notices.is_empty());
}

#[test]
fn a_wrong_value_is_named_with_its_variable_and_with_what_is_allowed() {
    for (variable, value, allowed) in [
        ("CALICO_IPV4POOL_IPIP", "sometimes", "Always, CrossSubnet, Never, off"),
        ("CALICO_IPV4POOL_CIDR", "10.0.0.0/27", "smaller than one block (/26)"),
        ("CALICO_IPV4POOL_CIDR", "10.0.0.1/16", "10.0.0.0/16"),
        ("CALICO_IPV4POOL_CIDR", "ten", "192.168.0.0/16"),
        ("CALICO_IPV4POOL_BLOCK_SIZE", "33", "20 to 32"),
        ("IP", "10.0.0", "10.0.0.5/24"),
        ("IP", "127.0.0.1", "loopback"),
        ("IP_AUTODETECTION_METHOD", "best", "can-reach=DESTINATION"),
        ("AUTODETECT_POLL_INTERVAL", "often", "60s"),
        ("AUTODETECT_POLL_INTERVAL", "0s", "60s"),
        ("CALICO_ROUTER_ID", "0.0.0.0", "0.0.0.0"),
        ("CALICO_ROUTER_ID", "name", "hash"),
        ("CALICO_IPV4POOL_NODE_SELECTOR", "has(", "selector"),
        ("CALICO_IPV6POOL_CIDR", "10.0.0.0/16", "fd00:10:244::/64"),
        ("CALICO_IPV6POOL_BLOCK_SIZE", "26", "116 to 128"),
        ("USE_POD_CIDR", "maybe", "true nor false"),
        ("AS", "0", "1 to 4294967295"),
        ("CALICO_NETWORKING_BACKEND", "frr", "bird, none, vxlan"),
        ("FELIX_IPINIPMTU", "12", "576 to 65535"),
        ("FELIX_IPINIPENABLED", "maybe", "true nor false"),
        ("FELIX_INTERFACEPREFIX", "california", "1 to 4"),
        ("MANX_DATASTORE", "file:relative", "absolute"),
        ("MANX_DATASTORE", "etcd", "file:DIR"),
        ("DATASTORE_TYPE", "etcdv3", "kubernetes"),
        ("KUBECONFIG", "relative", "absolute"),
        ("MANX_CONFIG_REVISION", "-1", "0 or greater"),
        ("MANX_INSTALL_CNI", "perhaps", "true nor false"),
        ("CNI_NET_DIR", "etc/cni", "absolute"),
        ("CNI_CONF_NAME", "../10-manx.conf", "10-manx.conflist"),
        ("NODENAME", "N 1", "a-z"),
    ] {
        let error = read(&[(variable, value)]).unwrap_err();
        assert!(error.contains(&format!("{variable}={value}: ")) && error.contains(allowed), "{error}");
    }
}

#[test]
fn calicos_word_for_kubernetes_is_understood_and_our_own_wins() {
    let kubernetes =
        |kubeconfig: Option<&str>| DatastoreChoice::Kubernetes { kubeconfig: kubeconfig.map(Into::into) };
    assert_eq!(read(&[("DATASTORE_TYPE", "kubernetes")]).unwrap().datastore, kubernetes(None));
    let named = read(&[("MANX_DATASTORE", "kubernetes"), ("KUBECONFIG", "/etc/manx/kubeconfig")]);
    assert_eq!(named.unwrap().datastore, kubernetes(Some("/etc/manx/kubeconfig")));
    let both = read(&[("MANX_DATASTORE", "memory"), ("DATASTORE_TYPE", "kubernetes")]).unwrap();
    assert_eq!(both.datastore, DatastoreChoice::Memory);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let error = read(&[("AS", "x"), ("IP", "y"), ("MANX_DATASTROE", "z")]).unwrap_err();
    assert_eq!(error.lines().count(), 4, "{error}");
    assert!(error.contains("MANX_DATASTROE: Manx has no such variable"), "{error}");
}

#[test]
fn a_pool_cannot_be_both_described_and_forbidden() {
    let error = read(&[("NO_DEFAULT_POOLS", "true"), ("CALICO_IPV4POOL_CIDR", "10.0.0.0/16")]).unwrap_err();
    assert!(error.contains("NO_DEFAULT_POOLS"), "{error}");
    assert_eq!(read(&[("NO_DEFAULT_POOLS", "true")]).unwrap().default_pool.cidr, None);
    assert_eq!(read(&[("CALICO_IPV4POOL_CIDR", "none")]).unwrap().default_pool.cidr, None);
}

#[test]
fn calicos_variables_without_effect_yet_are_listed_and_unknown_ones_of_felix_are_a_warning() {
    let config = read(&[
        ("IP6_AUTODETECTION_METHOD", "can-reach=2001:db8::1"),
        ("CLUSTER_TYPE", ""),
        ("FELIX_VXLANMTU", "1400"),
        ("FELIX_VXLANMUT", "1400"),
        ("CALICO_NETWORKING_BACKEND", "vxlan"),
        ("PATH", "/bin"),
    ])
    .unwrap();
    let texts: Vec<_> = config.notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "FELIX_VXLANMTU is not supported yet and has no effect",
            "IP6_AUTODETECTION_METHOD is not supported yet and has no effect",
            "FELIX_VXLANMUT is no parameter of Felix; is it misspelt?",
            "CALICO_NETWORKING_BACKEND=vxlan is not supported yet: nodes are not connected by this agent (use bird)",
        ]
    );
}

#[test]
fn what_an_operator_sets_of_address_identifier_and_pools_is_read() {
    let config = read(&[
        ("IP_AUTODETECTION_METHOD", "interface=eth.*,ens.*"),
        ("AUTODETECT_POLL_INTERVAL", "5m"),
        ("DISABLE_NODE_IP_CHECK", "true"),
        ("WAIT_FOR_DATASTORE", "true"),
        ("CALICO_ROUTER_ID", "hash"),
        ("USE_POD_CIDR", "true"),
        ("CALICO_IPV4POOL_NODE_SELECTOR", "has(rack)"),
        ("CALICO_IPV4POOL_DISABLE_BGP_EXPORT", "true"),
        ("CALICO_IPV6POOL_CIDR", "fd00:10:244::/64"),
        ("CALICO_IPV6POOL_NAT_OUTGOING", "true"),
    ])
    .unwrap();
    let method = "interface=eth.*,ens.*".parse().unwrap();
    assert_eq!(config.address, AddressSource::Autodetect(method));
    assert_eq!((config.address_poll, config.router_id), (Duration::from_secs(300), RouterId::Hash));
    assert!(config.shared_address_allowed && config.use_pod_cidr && config.default_pool.disable_bgp_export);
    assert_eq!(config.default_pool.node_selector.to_string(), "has(rack)");
    let six = config.default_pool6.unwrap();
    assert_eq!(
        (six.cidr.to_string().as_str(), six.block_size, six.nat_outgoing),
        ("fd00:10:244::/64", 122, true)
    );
    assert_eq!(config.notices, []);
    let both = read(&[("NO_DEFAULT_POOLS", "true"), ("CALICO_IPV6POOL_CIDR", "fd00::/64")]);
    assert!(both.unwrap_err().contains("NO_DEFAULT_POOLS"));
}

#[test]
fn a_flag_wins_over_its_variable_and_an_error_names_both() {
    let mut settings = Settings::from_environment([("NODENAME".to_owned(), "n1".to_owned())]);
    settings.set_flag("CALICO_IPV4POOL_IPIP", "--ipip", "x".into());
    let error = Config::read(&settings).unwrap_err().to_string();
    assert!(error.contains("CALICO_IPV4POOL_IPIP (from --ipip)=x: "), "{error}");
}

#[test]
fn felix_parameters_of_the_tunnel_are_read() {
    let felix = |variables| read(variables).unwrap().felix;
    assert_eq!(felix(&[("FELIX_IPINIPMTU", "1400")]).ipip_mtu, Some(1400));
    assert_eq!(felix(&[("FELIX_IPINIPMTU", "0")]).ipip_mtu, None);
    assert_eq!(felix(&[("FELIX_IPINIPENABLED", "false")]).ipip_enabled, Some(false));
    assert_eq!(felix(&[("FELIX_IPINIPENABLED", "true")]).ipip_enabled, Some(true));
}

#[test]
fn felix_parameters_of_nat_and_of_protocol_4_are_read() {
    let felix = read(&[
        ("FELIX_NATOUTGOINGADDRESS", "203.0.113.7"),
        ("FELIX_NATPORTRANGE", "32768:65535"),
        ("FELIX_NATOUTGOINGEXCLUSIONS", "ippoolsandhostips"),
        ("FELIX_EXTERNALNODESCIDRLIST", "10.0.0.1, 10.1.0.0/16"),
        ("FELIX_ALLOWIPIPPACKETSFROMWORKLOADS", "true"),
    ])
    .unwrap()
    .felix;
    assert_eq!(felix.nat_address, Some(Ipv4Addr::new(203, 0, 113, 7)));
    assert_eq!(felix.nat_ports, PortRange::new(32768, 65535));
    assert_eq!(felix.nat_exclusions, Some(NatExclusions::IPPoolsAndHostIPs));
    assert_eq!((felix.external_nodes.unwrap().len(), felix.ipip_from_pods), (2, Some(true)));
    assert_eq!(read(&[("FELIX_NATOUTGOINGADDRESS", "none")]).unwrap().felix.nat_address, None);
    for (variable, wrong) in [
        ("FELIX_NATOUTGOINGADDRESS", "fd00::1"),
        ("FELIX_NATPORTRANGE", "9:1"),
        ("FELIX_EXTERNALNODESCIDRLIST", "10.0.0.1,ten"),
    ] {
        assert!(read(&[(variable, wrong)]).unwrap_err().contains(variable));
    }
}

#[test]
fn the_cni_plugin_is_installed_only_where_that_is_asked_for() {
    assert_eq!(read(&[("CNI_MTU", "1400")]).unwrap().cni, None);
    let asked = [("MANX_INSTALL_CNI", "true"), ("SKIP_CNI_BINARIES", "manx-cni, x"), ("CNI_MTU", "1400")];
    let cni = read(&asked).unwrap().cni.unwrap();
    assert_eq!(cni.net_dir, PathBuf::from("/etc/cni/net.d"));
    assert_eq!((cni.conf_name.as_str(), cni.mtu, cni.update), ("10-manx.conflist", Some(1400), true));
    assert!(cni.skip.contains("manx-cni") && cni.template.is_none());
}
