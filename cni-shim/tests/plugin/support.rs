//! A runtime that calls the plugin, and an agent that answers it.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use manx_cni::{Reply, Request, wire};
use serde_json::{Value, json};

/// A namespace that everybody may open and that is not the node's network: the plugin looks no closer, the kernel does
/// when the agent enters it.
pub(crate) const NETNS: &str = "/proc/self/ns/uts";

/// A directory that goes with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("manx-cni-{}-{count}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("cni.sock")
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.0.join("spool")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An agent that takes one request and answers as it was told.
pub(crate) struct Agent(JoinHandle<(Request, Option<OwnedFd>)>);

impl Agent {
    pub(crate) fn replies(scratch: &Scratch, reply: Reply) -> Self {
        Self::says(scratch, wire::frame(&reply).unwrap())
    }

    /// Writes these octets and closes.
    pub(crate) fn says(scratch: &Scratch, octets: Vec<u8>) -> Self {
        Self::start(scratch, move |mut stream| stream.write_all(&octets).unwrap())
    }

    /// Says nothing until the plugin hangs up.
    pub(crate) fn silent(scratch: &Scratch) -> Self {
        Self::start(scratch, |mut stream| {
            stream.set_read_timeout(None).unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        })
    }

    fn start(scratch: &Scratch, answer: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        let listener = UnixListener::bind(scratch.socket()).unwrap();
        Self(std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut incoming = wire::Incoming::default();
            while !incoming.read(&stream).unwrap().unwrap() {}
            // A second call finds nobody behind the socket.
            drop(listener);
            answer(stream);
            incoming.request().unwrap()
        }))
    }

    /// What the agent was asked.
    pub(crate) fn heard(self) -> (Request, Option<OwnedFd>) {
        self.0.join().unwrap()
    }
}

/// One execution of the plugin: a good call, of which a test changes a part.
pub(crate) struct Call {
    env: Vec<(String, String)>,
    conf: Value,
    stdin: Option<Vec<u8>>,
}

impl Call {
    pub(crate) fn new(verb: &str, scratch: &Scratch) -> Self {
        let env = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", "4f2a"),
            ("CNI_NETNS", NETNS),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=nginx"),
            ("CNI_PATH", "/opt/cni/bin"),
        ];
        Self {
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            conf: json!({
                "cniVersion": "1.1.0", "name": "test-network", "type": "manx-cni",
                "socket": scratch.socket(), "spool": scratch.spool(),
            }),
            stdin: None,
        }
    }

    pub(crate) fn conf(mut self, key: &str, value: Value) -> Self {
        self.conf[key] = value;
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without_container(mut self) -> Self {
        self.env.retain(|(name, _)| name == "CNI_COMMAND" || name == "CNI_PATH");
        self
    }

    pub(crate) fn stdin(mut self, stdin: impl AsRef<[u8]>) -> Self {
        self.stdin = Some(stdin.as_ref().to_vec());
        self
    }

    pub(crate) fn run(self) -> Outcome {
        let mut child = Command::new(env!("CARGO_BIN_EXE_manx-cni"))
            .env_clear()
            .envs(self.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = self.stdin.unwrap_or_else(|| self.conf.to_string().into_bytes());
        // A plugin that refuses the call early reads nothing.
        let _ = child.stdin.take().unwrap().write_all(&stdin);
        let output = child.wait_with_output().unwrap();
        Outcome {
            code: output.status.code().expect("the plugin ends and is not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// What a runtime sees of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is an error as the specification wants it, and gives its details.
    pub(crate) fn expect_error(&self, code: u32, details: &str) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        let error = self.json();
        let fields: Vec<&str> = error.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields.len(), 4, "{fields:?}");
        assert!(error["cniVersion"].is_string() && error["msg"].is_string(), "{error}");
        assert_eq!(error["code"], json!(code), "{error}");
        let text = error["details"].as_str().unwrap();
        assert!(text.contains(details), "{details:?} is not in {text:?}");
        text.to_owned()
    }
}
