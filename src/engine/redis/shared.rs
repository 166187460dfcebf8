//! What the connections of one node have in common: names, scripts, what was seen, and which Redis it is.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::Notify;

use super::keys::Keys;
use super::scripts::{Script, Scripts};
use super::settings::RedisSettings;
use crate::engine::{EngineError, NodeId, Position};

/// Shared by all connections of one node.
pub(super) struct Shared {
    pub(super) settings: RedisSettings,
    pub(super) node: NodeId,
    pub(super) keys: Keys,
    pub(super) scripts: &'static Scripts,
    /// The highest position that this node has seen.
    seen: AtomicU64,
    /// The run id of the Redis that was met last.
    run: Mutex<Option<String>>,
    /// Asks the feed to connect anew.
    pub(super) doubt: Notify,
}

impl Shared {
    pub(super) fn new(settings: RedisSettings, node: NodeId, keys: Keys) -> Self {
        let scripts = if settings.time_travel { Scripts::time_travelling() } else { Scripts::real() };
        let (seen, run, doubt) = (AtomicU64::new(0), Mutex::new(None), Notify::new());
        Self { settings, node, keys, scripts, seen, run, doubt }
    }

    /// Notes a position that Redis gave.
    pub(super) fn saw(&self, position: Position) {
        self.seen.fetch_max(position.0, Ordering::Relaxed);
    }

    /// A call of a script with the arguments that all scripts take; the script's own follow.
    pub(super) fn invocation(&self, script: &Script) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&*script.hash).arg(1).arg(self.keys.root());
        command.arg(self.settings.key_ttl.as_secs()).arg(self.keys.announce());
        command
    }

    /// Runs a script; one that Redis does not know (yet, or any more) is loaded first. Nothing of it has happened then.
    pub(super) async fn run(
        &self,
        connection: &mut MultiplexedConnection,
        script: &Script,
        command: &Cmd,
    ) -> Result<Value, RedisError> {
        match command.query_async(connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                tracing::debug!(script = script.name, "loading a script");
                redis::cmd("SCRIPT").arg("LOAD").arg(&script.source).exec_async(connection).await?;
                command.query_async(connection).await
            }
            outcome => outcome,
        }
    }

    /// The first thing that is said on every connection (`scripts/meet.lua`).
    pub(super) async fn meet(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
        let run = field(&info, "run_id").to_owned();
        check_version(field(&info, "redis_version"))?;
        let script = &self.scripts.meet;
        let mut command = self.invocation(script);
        command.arg(self.seen.load(Ordering::Relaxed)).arg(&run);
        let reply = self.run(connection, script, &command).await?;
        let (era, lost): (String, String) = redis::from_redis_value(reply)?;
        if !lost.is_empty() {
            tracing::error!(era, "Redis has lost acknowledged messages; its sessions have to start again");
        }
        let before = self.run.lock().replace(run.clone());
        if before.is_some_and(|before| before != run) {
            tracing::warn!("another Redis answers at this address");
            // The feed may still hang on the old one.
            self.doubt.notify_one();
        }
        Ok(())
    }
}

/// The value of a line `name:value` of what `INFO` says.
fn field<'a>(info: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    info.lines().find_map(value).unwrap_or_default().trim()
}

/// What the scripts need came with Redis 6.2.
fn check_version(version: &str) -> Result<(), RedisError> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    if (numbers.next(), numbers.next()) >= (Some(6), Some(2)) {
        return Ok(());
    }
    Err((ErrorKind::Client, "Redis 6.2 or newer is needed", format!("this one is {version}")).into())
}

/// Says so if Redis may throw keys away by itself: what it drops, sessions miss (they are told, but it is a loss).
pub(super) async fn warn_of_eviction(connection: &mut MultiplexedConnection) {
    // An error is no trouble of its own: some providers do not allow it.
    let Ok(info) = redis::cmd("INFO").arg("memory").query_async::<String>(connection).await else { return };
    let (limit, policy) = (field(&info, "maxmemory"), field(&info, "maxmemory_policy"));
    if limit != "0" && !matches!(policy, "" | "noeviction") {
        tracing::warn!(policy, "Redis may evict messages and sessions: set its maxmemory-policy to noeviction");
    }
}

/// What a failed command means to the callers of an engine.
pub(super) fn engine_error(error: &RedisError) -> EngineError {
    // Checked by Redis before a script's first write.
    if says(error, "OOM") { EngineError::OutOfMemory } else { EngineError::Unavailable(error.to_string()) }
}

/// Whether a connection is of no use after this error. A server that became a replica will not take writes again.
pub(super) fn is_fatal(error: &RedisError) -> bool {
    error.is_unrecoverable_error() || error.is_io_error() || error.is_timeout() || says(error, "READONLY")
}

/// Whether the server answered with this code. Redis 6 puts that of a command in a script into the text of another.
fn says(error: &RedisError, code: &str) -> bool {
    error.code() == Some(code) || error.detail().is_some_and(|detail| detail.contains(&format!("-{code} ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for good in ["6.2.0", "7.0.15", "7.2.4", "8.0.1", "10.1"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for old in ["", "5.0.7", "6.0.16"] {
            assert!(check_version(old).is_err(), "{old}");
        }
        assert_eq!(field("# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n", "run_id"), "abc");
    }
}
