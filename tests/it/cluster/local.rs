//! A cluster as `deploy/local-cluster` starts it: Redis, three nodes, a balancer; each a process that a test may end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};

use crate::support::nodes::Nodes;
use crate::support::{eventually, within};

/// Clusters run one after the other: each wants the whole machine.
static TURN: Mutex<()> = Mutex::const_new(());

/// A running cluster. Stopped by [`Cluster::stop`], killed when dropped.
pub struct Cluster {
    script: Child,
    directory: tempfile::TempDir,
    state: Value,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts it; `arguments` go to each node.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    /// As [`Cluster::start`], with variables for each node.
    pub async fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let turn = TURN.lock().await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(program());
        command.args(["up", "--listen", "127.0.0.1:0", "--weft", env!("CARGO_BIN_EXE_weft"), "--directory"]);
        command.arg(directory.path()).arg("--").args(["--log-level", "info,weft::server=warn"]).args(arguments);
        command.envs(variables.iter().copied());
        let mut script =
            command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn().expect("it starts");
        let file = directory.path().join("cluster.json");
        let state = eventually(Duration::from_secs(60), "the cluster is ready", || {
            if let Some(status) = script.try_wait().expect("it can be waited for") {
                panic!("deploy/local-cluster ended before its cluster was ready: {status}");
            }
            std::future::ready(std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()))
        })
        .await;
        Self { script, directory, state, _turn: turn }
    }

    /// The nodes, without the balancer: each request picks one.
    pub fn nodes(&self) -> Nodes {
        let nodes = self.state["nodes"].as_array().expect("nodes");
        nodes.iter().map(|node| address(&node["listen"])).collect()
    }

    /// The process of a node; nodes count from 1.
    pub fn node_pid(&self, node: usize) -> u64 {
        self.read()["nodes"][node - 1]["pid"].as_u64().expect("a process id")
    }

    /// The process of Redis.
    pub fn redis_pid(&self) -> u64 {
        self.read()["redis"]["pid"].as_u64().expect("a process id")
    }

    /// Asks Redis something.
    pub async fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let client = redis::Client::open(self.state["redis"]["url"].as_str().expect("a URL")).expect("a good URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
        let (command, arguments) = words.split_first().expect("a command");
        redis::cmd(command).arg(arguments).query_async(&mut connection).await.expect("Redis takes the command")
    }

    fn read(&self) -> Value {
        let text = std::fs::read(self.directory.path().join("cluster.json")).expect("the state is there");
        serde_json::from_slice(&text).expect("JSON")
    }

    /// Runs a sub-command of the script.
    pub async fn command(&self, arguments: &[&str]) {
        let mut command = Command::new(program());
        command.args(arguments).arg("--directory").arg(self.directory.path());
        let run = within(Duration::from_secs(60), "the sub-command ends", command.output()).await.expect("it runs");
        assert!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
    }

    /// Panics unless each node is the process that was started first.
    pub fn assert_no_node_ended(&self) {
        for (index, node) in self.state["nodes"].as_array().expect("nodes").iter().enumerate() {
            assert_eq!(self.node_pid(index + 1), node["pid"].as_u64().expect("a process id"), "node {}", index + 1);
            assert_eq!(self.read()["nodes"][index]["exit"], Value::Null, "node {} runs", index + 1);
        }
    }

    /// Stops it; panics unless everything ended well.
    pub async fn stop(mut self) {
        signal("TERM", u64::from(self.script.id().expect("running")));
        let status = within(Duration::from_secs(60), "the cluster ends", self.script.wait()).await.expect("waited for");
        assert!(status.success(), "{status}");
    }
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy/local-cluster")
}

fn address(text: &Value) -> SocketAddr {
    text.as_str().and_then(|text| text.parse().ok()).expect("an address")
}

/// Sends a signal to a process.
pub fn signal(name: &str, pid: u64) {
    // The shell's own `kill`: small systems have no other.
    let kill = std::process::Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name, &pid.to_string()]).status();
    assert!(kill.expect("a shell").success(), "the signal is sent");
}
