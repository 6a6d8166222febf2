//! Who may ask the API server: users with their groups and tokens, and a kubeconfig for each.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{Options, pki};

/// Who may do everything.
pub(crate) const ADMIN: &str = "admin";
/// The file of tokens, which the API server reads when it starts.
pub(crate) const TOKENS: &str = "tokens.csv";

/// The users and their tokens.
#[derive(Debug)]
pub(crate) struct Users {
    dir: PathBuf,
    tokens: BTreeMap<String, String>,
}

impl Users {
    /// Gives the administrator and each user of `options` a token, and writes the files.
    pub(crate) fn write(options: &Options, dir: &Path, server: SocketAddr) -> Result<Self> {
        let admin = (ADMIN.to_owned(), vec!["system:masters".to_owned()]);
        let mut users = Users { dir: dir.to_owned(), tokens: BTreeMap::new() };
        let mut table = String::new();
        for (name, groups) in std::iter::once(&admin).chain(&options.users) {
            let words = || std::iter::once(name).chain(groups);
            ensure!(
                words().all(|word| !word.is_empty() && !word.contains([',', '"', '/', '\n'])),
                "user {name:?} of groups {groups:?}: a name is not empty and has no comma, quote, slash or line break"
            );
            let token = random_token()?;
            table += &format!("{token},{name},{name},\"{}\"\n", groups.join(","));
            let file = users.kubeconfig_file(name);
            ensure!(
                !users.tokens.keys().any(|other| users.kubeconfig_file(other) == file),
                "user {name:?} is there twice, or another one's name differs only in a colon"
            );
            fs::write(&file, kubeconfig(dir, server, name, &token))
                .with_context(|| format!("cannot write {}", file.display()))?;
            users.tokens.insert(name.clone(), token);
        }
        fs::write(dir.join(TOKENS), table)?;
        Ok(users)
    }

    pub(crate) fn token(&self, user: &str) -> Result<&str> {
        self.tokens.get(user).map(String::as_str).with_context(|| {
            format!(
                "no user {user:?}; there are {}",
                self.tokens.keys().cloned().collect::<Vec<_>>().join(", ")
            )
        })
    }

    pub(crate) fn kubeconfig(&self, user: &str) -> Result<PathBuf> {
        self.token(user)?;
        Ok(self.kubeconfig_file(user))
    }

    /// In the variable `KUBECONFIG` a colon separates files.
    fn kubeconfig_file(&self, user: &str) -> PathBuf {
        self.dir.join(format!("{}.kubeconfig", user.replace(':', ".")))
    }
}

fn kubeconfig(dir: &Path, server: SocketAddr, user: &str, token: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "manx", "cluster": {
            "server": format!("https://{server}"),
            "certificate-authority": dir.join(pki::AUTHORITY),
        }}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "manx", "context": {"cluster": "manx", "user": user}}],
        "current-context": "manx",
    })
    .to_string()
}

fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
