//! What the connections of one node have in common: names, scripts, what was seen, and which Redis it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::keys::Keys;
use super::scripts::{Script, Scripts};
use super::settings::RedisSettings;
use crate::engine::{EngineError, NodeId, Position};
use crate::metrics::Metrics;

/// Room for a call's words and their bytes, as a rule.
const USUAL: (usize, usize) = (64, 1024);

/// Shared by all connections of one node.
pub(super) struct Shared {
    pub(super) settings: RedisSettings,
    pub(super) node: NodeId,
    pub(super) keys: Keys,
    pub(super) scripts: &'static Scripts,
    /// The highest position that a write of this node was acknowledged with, and the highest that it has seen at all.
    acknowledged: AtomicU64,
    seen: AtomicU64,
    /// The run id of the Redis that was met last, and what others had acknowledged before.
    met: Mutex<Option<(String, u64)>>,
    generation: watch::Sender<u64>,
    /// Asks the feed to connect anew.
    pub(super) doubt: Notify,
    pub(super) metrics: Arc<Metrics>,
}

impl Shared {
    pub(super) fn new(settings: RedisSettings, node: NodeId, keys: Keys, metrics: Arc<Metrics>) -> Self {
        let scripts = if settings.time_travel { Scripts::time_travelling() } else { Scripts::real() };
        let (acknowledged, seen) = (AtomicU64::new(0), AtomicU64::new(0));
        scripts.all().iter().for_each(|script| metrics.expect_script(script.name));
        let (met, doubt) = (Mutex::new(None), Notify::new());
        let generation = watch::Sender::new(0);
        Self { settings, node, keys, scripts, acknowledged, seen, met, generation, doubt, metrics }
    }

    /// Notes a position that Redis has acknowledged a write with.
    pub(super) fn acknowledged(&self, position: Position) {
        self.acknowledged.fetch_max(position.0, Ordering::Relaxed);
        self.saw(position);
    }

    /// Notes a position that was announced, maybe by a server that is no master any more.
    pub(super) fn saw(&self, position: Position) {
        self.seen.fetch_max(position.0, Ordering::Relaxed);
    }

    /// Counts the servers that this node has met one after the other: who came from an older one is on the wrong server.
    pub(super) fn generation(&self) -> u64 {
        *self.generation.borrow()
    }

    /// Returns when the node has met another server than that of `generation`.
    pub(super) async fn another_server(&self, generation: u64) {
        // An error cannot be: the sender is a field beside.
        let _ = self.generation.subscribe().wait_for(|newest| *newest != generation).await;
    }

    /// A call of a script with the arguments that all scripts take; the script's own follow.
    pub(super) fn invocation(&self, script: &Script) -> Cmd {
        let mut command = Cmd::with_capacity(USUAL.0, USUAL.1);
        command.arg("EVALSHA").arg(&*script.hash).arg(1).arg(self.keys.root());
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
        let start = Instant::now();
        let outcome = self.run_or_load(connection, script, command).await;
        self.metrics.redis_call(script.name, outcome.is_ok(), start.elapsed());
        outcome
    }

    async fn run_or_load(
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

    /// The first thing that is said on every connection (`scripts/meet.lua`). Gives the generation of the server.
    pub(super) async fn meet(&self, connection: &mut MultiplexedConnection) -> Result<u64, RedisError> {
        let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
        check_version(field(&info, "redis_version"))?;
        let run = field(&info, "run_id").to_owned();
        let info: String = redis::cmd("INFO").arg("replication").query_async(connection).await?;
        let server = format!("{run}:{}", field(&info, "master_replid"));
        // What other servers had acknowledged when this node met this one: all of its connections say the same.
        let known = self.met.lock().clone().filter(|(known, _)| *known == run);
        let elsewhere = known.map_or_else(|| self.acknowledged.load(Ordering::Relaxed), |(_, elsewhere)| elsewhere);
        let script = &self.scripts.meet;
        let mut command = self.invocation(script);
        command.arg(&server).arg(elsewhere).arg(self.seen.load(Ordering::Relaxed));
        let reply = self.run(connection, script, &command).await?;
        let (era, lost): (String, String) = redis::from_redis_value(reply)?;
        if !lost.is_empty() {
            tracing::error!(era, "Redis has lost acknowledged messages; its sessions have to start again");
        }
        let mut met = self.met.lock();
        if met.as_ref().is_none_or(|(known, _)| *known != run) && met.replace((run, elsewhere)).is_some() {
            tracing::warn!("Redis was started again, or another one answers at its address");
            self.generation.send_modify(|generation| *generation += 1);
        }
        Ok(self.generation())
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

/// What somebody may do about a failed connection.
pub(super) fn hint(error: &RedisError) -> &'static str {
    let text = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if error.is_connection_refusal() || says(&["refused", "No such file"]) {
        "nothing listens there: is Redis started, and `redis.url` right?"
    } else if says(&["NOAUTH", "WRONGPASS", "NOPERM"]) || error.kind() == ErrorKind::AuthenticationFailed {
        "user, password or rights are wrong: see `redis.url` (special characters are written as %XX)"
    } else if says(&["DB index", "switch database"]) {
        "Redis has no database of this number: see `redis.url`"
    } else if says(&["READONLY", "MASTERDOWN"]) {
        "this is a replica: `redis.url` must lead to the master"
    } else if says(&["lookup", "resolve", "Name or service"]) {
        "the host name is unknown: see `redis.url`"
    } else {
        "is this a Redis, and should it be `redis://` or `rediss://` (TLS)?"
    }
}

/// What a failed command means to the callers of an engine.
pub(super) fn engine_error(error: &RedisError) -> EngineError {
    // Checked by Redis before a script's first write.
    if says(error, "OOM") { EngineError::OutOfMemory } else { EngineError::Unavailable(error.to_string()) }
}

/// Whether a connection is of no use after this error. A server that became a replica will not take writes again.
pub(super) fn is_fatal(error: &RedisError) -> bool {
    let not_master = ["READONLY", "MASTERDOWN", "NOREPLICAS"];
    error.is_unrecoverable_error()
        || error.is_io_error()
        || error.is_timeout()
        || not_master.iter().any(|code| says(error, code))
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
