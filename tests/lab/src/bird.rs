//! The BIRD 2 in the ToR: its configuration, its start, and questions to it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::topology::{NODE_AS, OUTSIDE_NET, TOR_AS, Topology, bridge, gateway};
use crate::{Process, Program, eventually};

const PATIENCE: Duration = Duration::from_secs(10);

/// Starts BIRD in the ToR's namespace and waits until it answers.
pub(crate) fn start(topology: &Topology, namespace: &str, dir: &Path) -> Result<Process> {
    let file = dir.join("bird.conf");
    fs::write(&file, config(topology)?).with_context(|| format!("cannot write {}", file.display()))?;
    // Relative names: the path of the control socket has its limit (unix(7)).
    let args = ["-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"];
    let program = Program::new("bird").args(args).dir(dir);
    let mut process = Process::start(namespace, program, dir.join("bird.out"))
        .context("the ToR needs BIRD (Debian package bird2)")?;
    eventually(PATIENCE, "BIRD to answer", || {
        if !process.is_running() {
            return Ok(Err(anyhow::anyhow!("BIRD ended: {}", process.log().trim())));
        }
        ask(dir, "show status").map(Ok)
    })??;
    Ok(process)
}

/// Asks BIRD by `birdc`.
pub(crate) fn ask(dir: &Path, command: &str) -> Result<String> {
    let output = Command::new("birdc")
        .args(["-s", "bird.ctl"])
        .args(command.split_whitespace())
        .current_dir(dir)
        .output()
        .context("cannot run birdc (Debian package bird2)")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // birdc ends with 0 even when BIRD refuses the command, and says so in its answer.
    let refused = ["syntax error", "CF_SYM"].iter().any(|words| text.contains(words));
    ensure!(
        output.status.success() && !refused,
        "birdc {command}: {} {}",
        text.trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    // The first line names BIRD and its version.
    Ok(text.split_once('\n').map_or(text.clone(), |(_, answer)| answer.to_owned()))
}

/// The last column of the line of `protocol` in `show protocols`, for instance `Passive` or `Established`.
pub(crate) fn session_state(protocols: &str, protocol: &str) -> Result<String> {
    for line in protocols.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.first() == Some(&protocol) {
            // Name, protocol, table, state, since, info...; the info may be empty.
            return Ok((*words.get(5).unwrap_or(&words[words.len() - 1])).to_owned());
        }
    }
    bail!("BIRD has no protocol {protocol}: {}", protocols.trim())
}

/// What BIRD is told. Sessions are passive, as a ToR's that has no list of its servers to dial; the waiting after an
/// error is short, since BIRD's own 60 seconds would make every test that ends a session wait for them. What it knows
/// of its own devices is in the kernel without it.
fn config(topology: &Topology) -> Result<String> {
    let id = topology.subnets.first().map(gateway).context("BIRD needs a subnet")?;
    let mut text = format!(
        "log \"bird.log\" all;\n\
         router id {id};\n\
         protocol device {{ scan time 10; }}\n\
         protocol direct {{ ipv4; interface \"br*\", \"outside\"; }}\n\
         protocol kernel {{\n  persist;\n  graceful restart on;\n  ipv4 {{ import none; export where source != RTS_DEVICE; }};\n}}\n\
         template bgp server {{\n  passive on;\n  graceful restart on;\n  error wait time 1, 5;\n  \
         error forget time 10;\n  ipv4 {{ import all; export where net = {OUTSIDE_NET}; }};\n}}\n"
    );
    for node in &topology.nodes {
        let subnet = topology.subnet_of(node)?;
        writeln!(text, "# {} on {}", node.name, bridge(&subnet))?;
        writeln!(
            text,
            "protocol bgp {} from server {{ local {} as {TOR_AS}; neighbor {} as {NODE_AS}; }}",
            node.name,
            gateway(&subnet),
            node.address
        )?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_a_session_with_the_tors_address_in_its_subnet() {
        let text = config(&Topology::founding()).unwrap();
        let line =
            "protocol bgp node3 from server { local 172.171.6.1 as 65000; neighbor 172.171.6.95 as 64512; }";
        assert!(text.contains(line), "{text}");
        assert_eq!(text.matches("protocol bgp").count(), 4);
    }

    #[test]
    fn the_state_of_a_session_is_the_last_column() {
        let text = "Name  Proto Table State Since Info\n\
                    node1 BGP   ---   start 12:00:00.123  Passive\n\
                    node2 BGP   ---   up    12:00:01.123  Established\n";
        assert_eq!(session_state(text, "node1").unwrap(), "Passive");
        assert_eq!(session_state(text, "node2").unwrap(), "Established");
        assert!(session_state(text, "node9").is_err());
    }
}
