//! The ToR's BIRD: what it hears, and what it is told to be.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use manx_lab::{Lab, eventually};

use crate::support::SOON;

/// What BIRD has heard of a prefix: by node, all that it shows.
pub(super) fn heard(lab: &Lab, prefix: &str) -> Result<BTreeMap<String, String>> {
    let mut heard: BTreeMap<String, String> = BTreeMap::new();
    let mut from = String::new();
    let shown = match lab.bird(&format!("show route {prefix} all")) {
        // What nobody tells is an error to birdc.
        Err(error) if format!("{error:#}").contains("Network not found") => return Ok(heard),
        shown => shown?,
    };
    for line in shown.lines() {
        // 192.168.7.0/26       unicast [node1 12:00:00.123] * (100) [AS64512i]
        if let Some((_, rest)) = line.split_once("unicast [") {
            from = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        if !from.is_empty() {
            let text = heard.entry(from.clone()).or_default();
            text.push_str(line.trim());
            text.push('\n');
        }
    }
    Ok(heard)
}

/// Waits until BIRD hears of a prefix from these nodes and no other.
pub(super) fn wait_heard(lab: &Lab, prefix: &str, nodes: &[&str]) {
    eventually(SOON, &format!("BIRD to hear {prefix} from {nodes:?}"), || {
        let heard = heard(lab, prefix)?;
        ensure!(heard.keys().eq(nodes), "{heard:?}");
        Ok(())
    })
    .unwrap();
}

/// Waits until what a node tells BIRD of a prefix has these words.
pub(super) fn wait_told(lab: &Lab, prefix: &str, node: &str, words: &[&str]) {
    eventually(SOON, &format!("{node} to tell BIRD of {prefix} with {words:?}"), || {
        let heard = heard(lab, prefix)?;
        let told = heard.get(node).context("it is not told")?;
        words.iter().try_for_each(|word| {
            ensure!(told.contains(word), "{word}: {told}");
            Ok(())
        })
    })
    .unwrap();
}

/// Puts `to` where BIRD's configuration says `from`, and makes BIRD read it.
pub(super) fn configure(lab: &Lab, from: &str, to: &str) {
    let file = lab.dir().join("bird.conf");
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from} in {text}");
    fs::write(&file, text.replace(from, to)).unwrap();
    let answer = lab.bird("configure").unwrap();
    assert!(answer.contains("Reconfigur"), "{answer}");
}

/// Since when BIRD's session with a node has been up.
pub(super) fn up_since(lab: &Lab, node: &str) -> Result<String> {
    let protocols = lab.bird("show protocols")?;
    let line = protocols.lines().find(|line| line.split_whitespace().next() == Some(node));
    let words: Vec<&str> = line.context("no such session")?.split_whitespace().collect();
    ensure!(words.get(5) == Some(&"Established"), "{words:?}");
    Ok(words[4].to_owned())
}
