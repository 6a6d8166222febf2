//! A BIRD 2 with its files in a directory of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::OUR_ASN;

pub(crate) struct Bird {
    pub(crate) address: SocketAddr,
    pub(crate) asn: u32,
    directory: PathBuf,
    child: Child,
}

/// One of us, as BIRD is configured to see it; BIRD knows it as `manx0`, `manx1` and so on.
#[derive(Clone)]
pub(crate) struct Neighbour {
    pub(crate) address: SocketAddr,
    pub(crate) asn: u32,
    /// Statements of the protocol, as `rr client;`.
    pub(crate) options: String,
    /// Statements of its channel, as `import all;`.
    pub(crate) channel: String,
}

impl Neighbour {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, asn: OUR_ASN, options: String::new(), channel: "import all; export all;".into() }
    }

    pub(crate) fn with(self, options: &str) -> Self {
        Self { options: options.into(), ..self }
    }
}

impl Bird {
    /// `routes` are static routes without the word `route`, as `10.0.0.0/8 blackhole`.
    pub(crate) fn start(address: SocketAddr, asn: u32, neighbours: &[Neighbour], routes: &[&str]) -> Self {
        let name = format!("manx-bird-{}-{}", std::process::id(), address.port());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        write(&directory, address, asn, neighbours, routes);
        let child = spawn(&directory, false);
        Self { address, asn, directory, child }
    }

    /// Takes another configuration without a restart.
    pub(crate) fn configure(&self, neighbours: &[Neighbour], routes: &[&str]) {
        write(&self.directory, self.address, self.asn, neighbours, routes);
        let answer = self.ask("configure");
        assert!(answer.contains("Reconfigur"), "{answer}");
    }

    pub(crate) fn ask(&self, question: &str) -> String {
        let mut command = Command::new("/usr/sbin/birdc");
        command.arg("-s").arg(self.directory.join("ctl")).args(question.split(' '));
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// It has the prefix from one of us.
    pub(crate) fn has(&self, prefix: &str) -> bool {
        self.ask(&format!("show route {prefix}")).contains("[manx")
    }

    /// Everything that it says about a prefix.
    pub(crate) fn route(&self, prefix: &str) -> String {
        self.ask(&format!("show route {prefix} all"))
    }

    pub(crate) fn established(&self, neighbour: usize) -> bool {
        self.ask(&format!("show protocols manx{neighbour}")).contains("Established")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// As `kill -9` and a new start find it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self, neighbours: &[Neighbour], routes: &[&str]) {
        write(&self.directory, self.address, self.asn, neighbours, routes);
        self.child = spawn(&self.directory, true);
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn spawn(directory: &Path, recover: bool) -> Child {
    let mut command = Command::new("/usr/sbin/bird");
    command.arg("-f").arg("-c").arg(directory.join("bird.conf"));
    command.arg("-s").arg(directory.join("ctl")).arg("-P").arg(directory.join("pid"));
    command.args(recover.then_some("-R")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| {
        panic!("this test needs /usr/sbin/bird: install the Debian package bird2 ({error})")
    })
}

fn write(directory: &Path, address: SocketAddr, asn: u32, neighbours: &[Neighbour], routes: &[&str]) {
    let routes: String = routes.iter().map(|route| format!("  route {route};\n")).collect();
    let (ip, port, log) = (address.ip(), address.port(), directory.join("log"));
    let mut config = format!(
        "log \"{}\" all;\nrouter id {ip};\nprotocol device {{}}\nprotocol static {{\n  ipv4;\n{routes}}}\n",
        log.display()
    );
    for (index, neighbour) in neighbours.iter().enumerate() {
        let Neighbour { address: us, asn: our_asn, options, channel } = neighbour;
        let (us_ip, us_port) = (us.ip(), us.port());
        config += &format!(
            "protocol bgp manx{index} {{\n  local {ip} port {port} as {asn};\n  \
             neighbor {us_ip} port {us_port} as {our_asn};\n  source address {ip};\n  strict bind yes;\n  \
             multihop;\n  debug {{ states, events }};\n  graceful restart on;\n  connect delay time 1;\n  \
             connect retry time 1;\n  error wait time 1, 2;\n  {options}\n  ipv4 {{ {channel} }};\n}}\n"
        );
    }
    fs::write(directory.join("bird.conf"), config).unwrap();
}
