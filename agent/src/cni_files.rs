//! The node's CNI files: the plugin's program, and the network configuration by which the container runtime finds it.
//!
//! The agent writes them itself, once it serves pods. kubelet takes a node for ready as soon as there is a
//! configuration, and an init container would write it while nobody is there to answer an ADD. It looks again from time
//! to time, so that what somebody deletes comes back, and a `portmap` that is installed later is chained. A restart
//! takes nothing away: pods that are made meanwhile are tried again (CNI error 11).
//!
//! Every file appears whole, under its name, by a rename; the configuration after everything that it needs.

mod conflist;
mod remove;
mod versions;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use manx_cni::CniVersion;
use manx_model::NodeName;
use tokio::sync::watch;

use crate::cni_server::NotReady;
use crate::config::{CniFiles, Config, Template};
use crate::problems::Problems;
use conflist::{Contents, PLUGIN, PORTMAP};
pub use remove::{Removed, Whole, remove};
use versions::Unasked;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// Installs the plugin of one node.
#[derive(Clone, Debug)]
pub struct Installer {
    /// Where, and how.
    pub files: CniFiles,
    /// This node.
    pub node: NodeName,
    /// The agent's socket, as the plugin reaches it.
    pub socket: PathBuf,
    /// Where the plugin leaves a DEL that no agent took.
    pub spool: PathBuf,
    /// The program to copy.
    pub program: PathBuf,
}

impl Installer {
    /// The installer that the configuration asks for, if it asks for one. The plugin lies beside this program.
    pub fn of(config: &Config) -> Option<Self> {
        let itself = std::env::current_exe().unwrap_or_default();
        Some(Self {
            files: config.cni.clone()?,
            node: config.node.clone(),
            socket: config.cni_socket(),
            spool: config.spool(),
            program: itself.with_file_name(PLUGIN),
        })
    }

    /// Keeps the files as they should be, from the moment when pods are served.
    pub async fn keep(self, mut not_ready: watch::Receiver<NotReady>, problems: Problems) {
        if not_ready.wait_for(Option::is_none).await.is_err() {
            return;
        }
        loop {
            problems.set("cni", self.install().await);
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Brings the files into the state that they should have; returns what is wrong with them.
    pub async fn install(&self) -> Vec<String> {
        if let Err(problem) = self.install_program() {
            // A configuration without its program would make the node look ready.
            return vec![problem];
        }
        let mut problems = Vec::new();
        let path = self.files.conflist();
        match self.configuration(&mut problems).await {
            Ok(text) => match replace(&path, text.as_bytes(), 0o644) {
                Ok(true) => tracing::info!("wrote the network configuration {}", path.display()),
                Ok(false) => {}
                Err(error) => problems.push(format!("cannot write {}: {error}", path.display())),
            },
            Err(problem) => problems.push(problem),
        }
        problems.extend(self.overshadowed());
        problems
    }

    fn install_program(&self) -> Result<(), String> {
        let path = self.files.bin_dir.join(PLUGIN);
        let others = self.files.skip.contains(PLUGIN);
        if path.exists() && (others || !self.files.update) {
            return Ok(());
        }
        if others {
            return Err(format!(
                "{} is not there, and SKIP_CNI_BINARIES says not to install it",
                path.display()
            ));
        }
        let program = fs::read(&self.program)
            .map_err(|error| format!("the plugin to install, {}: {error}", self.program.display()))?;
        match replace(&path, &program, 0o755) {
            Ok(true) => tracing::info!("installed {}", path.display()),
            Ok(false) => {}
            Err(error) => return Err(format!("cannot install {}: {error}", path.display())),
        }
        Ok(())
    }

    async fn configuration(&self, problems: &mut Vec<String>) -> Result<String, String> {
        match &self.files.template {
            None => Ok(self.own(problems).await),
            Some(Template::Text(text)) => self.filled(text, "CNI_NETWORK_CONFIG", problems),
            Some(Template::File(path)) => {
                let name = format!("CNI_NETWORK_CONFIG_FILE={}", path.display());
                let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
                self.filled(&text, &name, problems)
            }
        }
    }

    fn filled(&self, template: &str, name: &str, problems: &mut Vec<String>) -> Result<String, String> {
        let text = conflist::fill(template, self.node.as_str(), self.files.mtu)
            .map_err(|reason| format!("{name}: {reason}"))?;
        let list = serde_json::from_str(&text).unwrap_or_default();
        let absent = conflist::types(&list).filter(|name| !self.files.bin_dir.join(name).exists());
        let dir = self.files.bin_dir.display();
        problems.extend(absent.map(|absent| format!("{name} names {absent}, which is not in {dir}")));
        Ok(text)
    }

    async fn own(&self, problems: &mut Vec<String>) -> String {
        let (portmap, problem) = self.portmap().await;
        problems.extend(problem);
        conflist::render(&Contents {
            socket: &self.socket.to_string_lossy(),
            spool: &self.spool.to_string_lossy(),
            mtu: self.files.mtu,
            portmap: portmap.as_deref(),
        })
    }

    /// The versions of this node's `portmap`, if it has one to chain; and what is wrong with it.
    async fn portmap(&self) -> (Option<Vec<CniVersion>>, Option<String>) {
        let path = self.files.bin_dir.join(PORTMAP);
        let name = path.display();
        if !path.exists() {
            return (None, Some(format!("{name} does not exist: hostPort of pods has no effect")));
        }
        match versions::ask(&path).await {
            Ok(versions) if conflist::can_be_chained(&versions) => (Some(versions), None),
            Ok(_) => {
                let ours = CniVersion::list();
                (None, Some(format!("{name} speaks none of {ours}: hostPort of pods has no effect")))
            }
            // Debian's, for instance. Nothing is wrong with it, and there is nothing to mend.
            Err(Unasked::NotHere) => (Some(versions::ASSUMED.to_vec()), None),
            Err(Unasked::Failed(reason)) => {
                let assumed = versions::ASSUMED.map(CniVersion::as_str).join(", ");
                let problem = format!(
                    "{name} cannot be asked for its CNI versions ({reason}); it is taken to speak {assumed}"
                );
                (Some(versions::ASSUMED.to_vec()), Some(problem))
            }
        }
    }

    /// Configurations of others that the runtime takes instead of ours. They are somebody's, and stay.
    fn overshadowed(&self) -> Vec<String> {
        let names = match names(&self.files.net_dir) {
            Ok(names) => names,
            Err(error) => return vec![format!("cannot read {}: {error}", self.files.net_dir.display())],
        };
        let (dir, ours) = (self.files.net_dir.display(), &self.files.conf_name);
        let text = |name: &str| {
            format!(
                "{dir}/{name} sorts before {ours}: the container runtime uses it, and not Manx, until it is removed"
            )
        };
        conflist::earlier(&names, ours).into_iter().map(text).collect()
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Puts a file in place, whole and on the disk; returns whether there was anything to do.
fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<bool> {
    let is_so = || {
        Ok::<_, io::Error>(
            fs::read(path)? == contents && fs::metadata(path)?.permissions().mode() & 0o7777 == mode,
        )
    };
    if is_so().unwrap_or(false) {
        return Ok(false);
    }
    let directory = path.parent().ok_or_else(|| io::Error::other("it is no file"))?;
    fs::create_dir_all(directory)?;
    let temporary = unfinished(path);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
    file.write_all(contents)?;
    // The process's umask, or an earlier attempt, may have made it another.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()?;
    Ok(true)
}

/// Where a file is written until it is whole: no runtime reads a name with this ending, and what a killed agent left
/// there is overwritten by the next.
fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.unfinished"))
}

#[cfg(test)]
mod tests;
