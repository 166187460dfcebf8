//! Real Redis servers, one for each test that wants one, killed when dropped.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use weft::engine::redis::{RedisNode, RedisSettings};
use weft::engine::{Feed, NodeId};

use super::eventually;

/// A Redis of its own, behind a socket in a directory of its own.
pub struct Redis {
    /// Held for its drop, which kills.
    child: Child,
    directory: tempfile::TempDir,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// As [`Redis::start`], with more arguments.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let child = Self::spawn(&directory.path().join("redis.sock"), arguments);
        let redis = Self { child, directory };
        redis.answers().await;
        redis
    }

    fn spawn(socket: &std::path::Path, arguments: &[&str]) -> Child {
        Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(socket)
            .args(arguments)
            .current_dir(socket.parent().expect("in a directory"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server starts; `./test.sh setup` installs it")
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    async fn answers(&self) {
        let client = self.client();
        eventually(Duration::from_secs(10), "Redis answers", || async {
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            redis::cmd("PING").exec_async(&mut connection).await.ok()
        })
        .await;
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("a good address")
    }

    /// Asks the server something.
    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.client().get_multiplexed_async_connection().await.expect("Redis answers");
        let (command, arguments) = words.split_first().expect("a command");
        redis::cmd(command).arg(arguments).query_async(&mut connection).await.expect("Redis takes the command")
    }

    /// The process, for signals.
    pub fn pid(&self) -> String {
        self.child.id().expect("running").to_string()
    }

    /// Kills it and starts it again with nothing but what is on the disk.
    pub async fn restart(&mut self) {
        self.child.kill().await.expect("killed");
        self.child = Self::spawn(&self.socket(), &[]);
        self.answers().await;
    }

    /// A node's connections, with their tasks running in the background.
    pub async fn node(&self, adjust: impl FnOnce(&mut RedisSettings)) -> (RedisNode, Feed) {
        self.node_named(NodeId::random(), adjust).await
    }

    /// As [`Redis::node`], under a name.
    pub async fn node_named(&self, id: NodeId, adjust: impl FnOnce(&mut RedisSettings)) -> (RedisNode, Feed) {
        let mut settings = RedisSettings { url: self.url(), time_travel: true, ..RedisSettings::default() };
        adjust(&mut settings);
        let (node, feed, tasks) = RedisNode::new(id, settings).expect("good settings");
        tokio::spawn(tasks.run());
        super::soon("the feed is live", node.available()).await;
        (node, feed)
    }
}
