//! The real kubectl and helm, for tests and, by scripts in the folder of the control plane, for people.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::users::ADMIN;

/// A script in the folder of the control plane, which runs a program as the administrator of that control plane.
#[derive(Debug)]
pub(crate) struct Tool {
    name: &'static str,
    script: PathBuf,
}

impl Tool {
    /// Writes the script `name`: `program` begins the command line that runs it, and each of the variables `folders` names
    /// a folder for what it keeps, all of them the same.
    pub(crate) fn write(
        dir: &Path,
        name: &'static str,
        program: &[String],
        folders: &[&str],
    ) -> Result<Self> {
        let script = dir.join(name);
        let words: Vec<String> = program.iter().map(|word| quoted(word)).collect();
        let cache = path(dir, &format!("{name}-cache"));
        let exports: String = folders.iter().map(|variable| format!("export {variable}={cache}\n")).collect();
        let text = format!(
            "#!/bin/sh\n\
             # {name} for the control plane in this folder; a --kubeconfig among the arguments takes precedence.\n\
             {exports}\
             exec {} --kubeconfig {} \"$@\"\n",
            words.join(" "),
            path(dir, &format!("{ADMIN}.kubeconfig")),
        );
        fs::write(&script, text).with_context(|| format!("cannot write {}", script.display()))?;
        fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        Ok(Tool { name, script })
    }

    /// Runs it to its end; its standard output. A nonzero exit code is an error with its words.
    pub(crate) fn run(&self, args: &[&str], input: &str) -> Result<String> {
        self.ended(args, input).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same, but what it says on standard error comes before its standard output.
    pub(crate) fn run_aloud(&self, args: &[&str]) -> Result<String> {
        let output = self.ended(args, "")?;
        Ok([output.stderr, output.stdout].iter().map(|words| String::from_utf8_lossy(words)).collect())
    }

    fn ended(&self, args: &[&str], input: &str) -> Result<Output> {
        let output =
            self.output(args, input).with_context(|| format!("cannot run {}", self.script.display()))?;
        if !output.status.success() {
            let stdout = String::from_utf8_lossy(&output.stdout);
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{} {}: {}: {}{}", self.name, args.join(" "), output.status, stderr.trim(), stdout.trim());
        }
        Ok(output)
    }

    fn output(&self, args: &[&str], input: &str) -> std::io::Result<Output> {
        // By name to the shell: Linux executes no file that a child of another thread still has open for writing.
        let mut child = Command::new("sh")
            .arg(&self.script)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        std::thread::scope(|scope| {
            // A program that ends early closes the pipe; its own words say more than EPIPE does.
            scope.spawn(|| stdin.map(|mut stdin| stdin.write_all(input.as_bytes())));
            child.wait_with_output()
        })
    }
}

fn path(dir: &Path, name: &str) -> String {
    quoted(&dir.join(name).display().to_string())
}

/// One word for a shell, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_quotes_in_a_path_stay_in_one_word() {
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
