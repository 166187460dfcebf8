//! Real Redis servers, one for each test that wants one, killed when dropped.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use weft::engine::redis::{RedisNode, RedisSettings};
use weft::engine::{Feed, NodeId};
use weft::metrics::Metrics;

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
        // Another one to test with: an older Redis, Valkey.
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        Command::new(program)
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

    /// The socket behind which it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Waits until it answers.
    pub async fn answers(&self) {
        let client = self.client();
        eventually(Duration::from_secs(30), "Redis answers", || async {
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
        self.try_ask(words).await.expect("Redis takes the command")
    }

    /// As [`Redis::ask`], for what it may refuse.
    pub async fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        // No handshake of its own: a server that is busy refuses that already.
        let info = redis::IntoConnectionInfo::into_connection_info(self.url()).expect("a good address");
        let plain = info.redis_settings().clone().set_skip_set_lib_name();
        let client = redis::Client::open(info.set_redis_settings(plain))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let (command, arguments) = words.split_first().expect("a command");
        redis::cmd(command).arg(arguments).query_async(&mut connection).await
    }

    /// Asks for something that takes long, and does not wait for it.
    pub fn ask_in_background(&self, words: &[&str]) -> tokio::task::JoinHandle<()> {
        let client = self.client();
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        tokio::spawn(async move {
            let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
            // Longer than the client waits, or refused in the end: both are as they should be.
            let _: redis::RedisResult<()> = redis::cmd(&words[0]).arg(&words[1..]).query_async(&mut connection).await;
        })
    }

    /// Sends a signal to the process.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("running").to_string();
        let kill = std::process::Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name, &id]).status();
        assert!(kill.expect("a shell").success(), "the signal is sent");
    }

    /// Kills it.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// Kills it and starts it again with nothing but what is on the disk.
    pub async fn restart(&mut self) {
        self.restart_loading(&[]).await;
        self.answers().await;
    }

    /// As [`Redis::restart`], with more arguments, and without waiting until it answers.
    pub async fn restart_loading(&mut self, arguments: &[&str]) {
        // An error means that it has been killed already.
        let _ = self.child.kill().await;
        self.child = Self::spawn(&self.socket(), arguments);
    }

    /// A node's connections, with their tasks running in the background.
    pub async fn node(&self, adjust: impl FnOnce(&mut RedisSettings)) -> (RedisNode, Feed) {
        self.node_named(NodeId::random(), adjust).await
    }

    /// As [`Redis::node`], under a name.
    pub async fn node_named(&self, id: NodeId, adjust: impl FnOnce(&mut RedisSettings)) -> (RedisNode, Feed) {
        let mut settings = RedisSettings { url: self.url(), time_travel: true, ..RedisSettings::default() };
        adjust(&mut settings);
        let metrics = Arc::new(Metrics::new().expect("names are distinct"));
        let (node, feed, tasks) = RedisNode::new(id, settings, metrics).expect("good settings");
        tokio::spawn(tasks.run());
        super::soon("the feed is live", node.available()).await;
        (node, feed)
    }
}
