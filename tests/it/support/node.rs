//! Starts nodes: in process through the library, or as a child process through the command line.
//! The only file that knows the library's names for configuration.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use super::eventually;

/// A node inside this process. Stops when dropped; [`TestNode::stop`] stops it gracefully.
pub struct TestNode {
    node: weft::Node,
}

impl TestNode {
    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.node.public_addr()
    }

    /// Where health and metrics are.
    pub fn internal_addr(&self) -> SocketAddr {
        self.node.internal_addr()
    }

    /// The node itself, as an embedding program has it.
    pub fn embedded(&self) -> &weft::Node {
        &self.node
    }

    /// Stops gracefully.
    pub async fn stop(self) {
        self.node.stop().await;
    }
}

/// Starts a node on free ports, with the defaults as `adjust` changes them.
pub async fn node(adjust: impl FnOnce(&mut weft::Config)) -> TestNode {
    let node = weft::Node::start(config(adjust)).await.expect("the node starts");
    TestNode { node }
}

/// As [`node`], with a server extension.
pub async fn node_with_extension(extension: impl weft::Extension, adjust: impl FnOnce(&mut weft::Config)) -> TestNode {
    let node = weft::Node::builder(config(adjust)).extension(extension).start().await.expect("the node starts");
    TestNode { node }
}

/// As [`node`], with two server extensions in this order.
pub async fn node_with_extensions(
    first: impl weft::Extension,
    second: impl weft::Extension,
    adjust: impl FnOnce(&mut weft::Config),
) -> TestNode {
    let builder = weft::Node::builder(config(adjust)).extension(first).extension(second);
    let node = builder.start().await.expect("the node starts");
    TestNode { node }
}

fn config(adjust: impl FnOnce(&mut weft::Config)) -> weft::Config {
    let mut config = weft::Config::default();
    adjust(&mut config);
    // Last: no test chooses its ports, they run side by side.
    config.listen = free_port();
    config.internal_listen = free_port();
    config
}

fn free_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Patience with slow requests that a test can sit through: half a second for the headers, half a second for a body
/// that does not move.
pub fn impatient(config: &mut weft::Config) {
    config.limits.header_timeout = Duration::from_millis(500);
    config.limits.body_timeout = Duration::from_millis(500);
}

/// A node as a process of its own, killed when dropped.
pub struct Process {
    /// Its drop kills.
    child: Child,
    addr: SocketAddr,
    internal: SocketAddr,
    /// Holds the ready file.
    _directory: tempfile::TempDir,
}

impl Process {
    /// Runs `weft serve` on free ports with `arguments` added, and waits until it serves.
    pub async fn start(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ready_file = directory.path().join("ready.json");
        let mut child = Command::new(env!("CARGO_BIN_EXE_weft"))
            .args(["serve", "--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--ready-file"])
            .arg(&ready_file)
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("weft starts");
        let (addr, internal) = eventually(Duration::from_secs(20), "weft writes its ready file", || {
            if let Some(status) = child.try_wait().expect("weft can be waited for") {
                panic!("weft ended before it served: {status}");
            }
            std::future::ready(addresses(&ready_file))
        })
        .await;
        Self { child, addr, internal, _directory: directory }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("weft runs")
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where health and metrics are.
    pub fn internal_addr(&self) -> SocketAddr {
        self.internal
    }
}

/// The addresses from a ready file; `None` while there is no complete one.
fn addresses(ready_file: &std::path::Path) -> Option<(SocketAddr, SocketAddr)> {
    let text = std::fs::read_to_string(ready_file).ok()?;
    let ready: serde_json::Value = serde_json::from_str(&text).ok()?;
    let address = |key: &str| Some(ready[key].as_str()?.parse().expect("an address"));
    Some((address("listen")?, address("internal")?))
}
