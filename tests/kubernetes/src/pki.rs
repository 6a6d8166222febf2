//! The identities of a control plane: its own authority, the API server's certificates, the key of service
//! accounts. Elliptic curves throughout, as an RSA key costs seconds under emulation.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;

/// Under which names the API server is known, beside its address; the last is the first address of [`SERVICES`].
const NAMES: [&str; 4] = ["localhost", "kubernetes", "kubernetes.default.svc", "10.96.0.1"];
/// The addresses of services.
pub(crate) const SERVICES: &str = "10.96.0.0/16";

pub(crate) const AUTHORITY: &str = "ca.crt";
pub(crate) const SERVER_CERTIFICATE: &str = "kube-apiserver.crt";
pub(crate) const SERVER_KEY: &str = "kube-apiserver.key";
pub(crate) const KUBELET_CERTIFICATE: &str = "kubelet.crt";
pub(crate) const KUBELET_KEY: &str = "kubelet.key";
pub(crate) const KUBELET_CLIENT_CERTIFICATE: &str = "kubelet-client.crt";
pub(crate) const KUBELET_CLIENT_KEY: &str = "kubelet-client.key";
pub(crate) const SERVICE_ACCOUNT_KEY: &str = "service-accounts.key";
pub(crate) const SERVICE_ACCOUNT_PUBLIC_KEY: &str = "service-accounts.pub";

/// Writes the files into `dir`, and returns the authority's certificate.
pub(crate) fn write(dir: &Path, address: IpAddr) -> Result<CertificateDer<'static>> {
    let key = KeyPair::generate()?;
    let params = authority();
    let certificate = params.self_signed(&key)?;
    file(dir, AUTHORITY, &certificate.pem())?;

    let issuer = Issuer::new(params, key);
    let server_key = KeyPair::generate()?;
    let server = server(address)?.signed_by(&server_key, &issuer)?;
    file(dir, SERVER_CERTIFICATE, &server.pem())?;
    file(dir, SERVER_KEY, &server_key.serialize_pem())?;
    let kubelet_key = KeyPair::generate()?;
    file(dir, KUBELET_CERTIFICATE, &CertificateParams::default().signed_by(&kubelet_key, &issuer)?.pem())?;
    file(dir, KUBELET_KEY, &kubelet_key.serialize_pem())?;
    let client_key = KeyPair::generate()?;
    file(dir, KUBELET_CLIENT_CERTIFICATE, &kubelet_client().signed_by(&client_key, &issuer)?.pem())?;
    file(dir, KUBELET_CLIENT_KEY, &client_key.serialize_pem())?;
    let service_accounts = KeyPair::generate()?;
    file(dir, SERVICE_ACCOUNT_KEY, &service_accounts.serialize_pem())?;
    file(dir, SERVICE_ACCOUNT_PUBLIC_KEY, &service_accounts.public_key_pem())?;
    Ok(certificate.der().clone())
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "manx tests");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn server(address: IpAddr) -> Result<CertificateParams> {
    let names = NAMES.into_iter().map(str::to_owned).chain([address.to_string()]);
    let mut params = CertificateParams::new(names.collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    Ok(params)
}

/// As whom the API server asks kubelets for logs and the like: somebody who may do everything.
fn kubelet_client() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver-kubelet-client");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn file(dir: &Path, name: &str, text: &str) -> Result<()> {
    let path = dir.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
