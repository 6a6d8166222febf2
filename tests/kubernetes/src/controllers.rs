//! The rest of a control plane for real nodes: kube-controller-manager and kube-scheduler.

use anyhow::Result;

use crate::users::Users;
use crate::{Options, pki};

/// The programs, each with the user as whom it asks: Kubernetes itself binds their roles.
const PROGRAMS: [(&str, &str); 2] = [
    ("kube-controller-manager", "system:kube-controller-manager"),
    ("kube-scheduler", "system:kube-scheduler"),
];

/// As whom they ask.
pub(crate) fn users() -> Vec<&'static str> {
    PROGRAMS.iter().map(|(_, user)| *user).collect()
}

/// Name and arguments of each, of a control plane that is to be whole.
pub(crate) fn programs(options: &Options, users: &Users) -> Result<Vec<(&'static str, Vec<String>)>> {
    if !options.whole {
        return Ok(Vec::new());
    }
    let args = |(name, user): (&'static str, &str)| {
        let mut args = vec![
            format!("--kubeconfig={}", users.kubeconfig(user)?.display()),
            "--leader-elect=false".to_owned(),
            // Nobody asks them, and an RSA key for their own certificate costs seconds under emulation.
            "--secure-port=0".to_owned(),
        ];
        if name == "kube-controller-manager" {
            args.extend([
                format!("--service-account-private-key-file={}", pki::SERVICE_ACCOUNT_KEY),
                format!("--root-ca-file={}", pki::AUTHORITY),
                "--use-service-account-credentials=true".to_owned(),
            ]);
        }
        Ok((name, args))
    };
    PROGRAMS.into_iter().map(args).collect()
}

/// What the API server is told beside, or instead of, what it is told alone.
pub(crate) fn api_server_args(options: &Options) -> Vec<String> {
    if !options.whole {
        // Without a controller manager no namespace has the service account that this would ask for with every pod.
        return vec!["--disable-admission-plugins=ServiceAccount".to_owned()];
    }
    vec![
        format!("--kubelet-client-certificate={}", pki::KUBELET_CLIENT_CERTIFICATE),
        format!("--kubelet-client-key={}", pki::KUBELET_CLIENT_KEY),
        // The nodes' names are in no DNS.
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ]
}
