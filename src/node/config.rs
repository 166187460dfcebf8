//! The configuration: plain structs, what they may hold, and what the parts of a node make of them. Read in `layers`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use super::delivery_config::{RetentionConfig, ServicesConfig};
use super::limits_config::Limits;
use super::log_config::LogSettings;
use super::redis_config::RedisConfig;
use super::written::{address, duration, mounts, write_duration, write_mounts};
use crate::bayeux::{Dialect, message};
use crate::engine::memory::MemoryLimits;
use crate::transport::Mount;
use crate::{listen, server, session, transport};

/// No duration makes sense beyond it, and sums of them must not overflow.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

/// More threads than any machine has use for.
const MAX_WORKERS: usize = 1024;

/// Everything that a node can be told. Each field has a default; `weft check-config` prints the result.
#[derive(Debug, Clone, PartialEq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect. Port 0 picks a free one.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Where metrics and health are served.
    #[serde(deserialize_with = "address")]
    pub internal_listen: SocketAddr,
    /// Where Bayeux is spoken: `PATH` or `PATH=DIALECT`, dialect `faye` or `cometd`.
    #[serde(deserialize_with = "mounts", serialize_with = "write_mounts")]
    pub mounts: Vec<Mount>,
    /// How long a `/meta/connect` is held; sessions live twice as long without being heard of.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub timeout: Duration,
    /// Clients that must handshake again are spread over this time (Faye dialect).
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub handshake_spread: Duration,
    /// How long a node that is asked to stop goes on as before, but not ready: until balancers have noticed.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub drain_grace: Duration,
    /// Over this time a node that is asked to stop then sends its clients to the other nodes, evenly. Without other nodes
    /// (memory engine) it does not wait.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub drain_timeout: Duration,
    /// How old a connection may become, give or take a tenth; 0 for any age. Its client connects again then, to another
    /// node maybe: so that new nodes get their share.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub max_connection_age: Duration,
    /// How long connections may take to end when the node stops.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub stop_timeout: Duration,
    /// For so long the engine may be away without sessions or messages being lost: logs are kept for three time-outs and
    /// this long. The same on all nodes.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub outage_grace: Duration,
    /// A session ends when its client has neither published nor changed its subscriptions for this long; 0 for never. The
    /// same on all nodes.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub max_inactivity: Duration,
    /// For so long a publish that is sent again is recognised, and stored once; 0 for not at all. The same on all nodes.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub idempotency_window: Duration,
    /// Where sessions and messages are kept.
    pub engine: EngineKind,
    /// The Redis engine.
    pub redis: RedisConfig,
    /// How often an idle WebSocket is pinged.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub websocket_ping: Duration,
    /// How long a silent WebSocket may leave a ping unanswered.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub websocket_pong: Duration,
    /// How often an idle event stream gets a comment.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub eventsource_ping: Duration,
    /// Threads that serve clients; 0 for one for each CPU that the process may use. Where several nodes share a machine,
    /// each needs no more than its share.
    pub workers: usize,
    /// Near this many bytes of resident memory a node is not ready for new clients; 0 for what its container may use.
    pub memory_limit_bytes: usize,
    /// Whether the public listener shows a page at `/`, with a chat and a live view, and what it needs.
    pub page: bool,
    /// What is kept for subscribers to come. The same on all nodes.
    pub retention: Vec<RetentionConfig>,
    /// What the node answers by itself.
    pub services: ServicesConfig,
    /// Bounds.
    pub limits: Limits,
    /// Logging.
    pub log: LogSettings,
}

/// Where sessions and messages are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum EngineKind {
    /// Redis if its URL is given, memory otherwise.
    Auto,
    /// In this process: one node.
    Memory,
    /// In Redis: as many nodes as you like.
    Redis,
}

/// What is wrong with a configuration. The text names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file, variable or flag cannot be read.
    #[error("{0}")]
    Source(String),
    /// A value makes no sense.
    #[error("`{key}`: {problem}")]
    Value {
        /// Which, such as `limits.sessions` or `retention[1].age`.
        key: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A mistake, and where it stands.
    #[error("{place}: {problem}")]
    At {
        /// The file, variable or flag, or the default.
        place: String,
        /// What is wrong.
        problem: Box<ConfigError>,
    },
}

impl ConfigError {
    pub(super) fn value(key: &str, problem: impl Into<String>) -> Self {
        Self::Value { key: key.to_owned(), problem: problem.into() }
    }

    /// Says where it stands: in which file, variable or flag.
    pub(super) fn at(self, place: String) -> Self {
        Self::At { place, problem: Box::new(self) }
    }
}

impl TryFrom<String> for EngineKind {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match name.as_str() {
            "auto" => Ok(Self::Auto),
            "memory" => Ok(Self::Memory),
            "redis" => Ok(Self::Redis),
            _ => Err(format!("unknown engine `{name}`: use `auto`, `memory` or `redis`")),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let mount = |path: &str, dialect| Mount::new(path, dialect).ok();
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            internal_listen: SocketAddr::from(([127, 0, 0, 1], 8001)),
            mounts: mount("/bayeux", Dialect::Faye).into_iter().chain(mount("/cometd", Dialect::CometD)).collect(),
            timeout: Duration::from_secs(45),
            handshake_spread: Duration::from_secs(5),
            drain_grace: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            max_connection_age: Duration::ZERO,
            stop_timeout: Duration::from_secs(10),
            outage_grace: Duration::from_secs(60),
            max_inactivity: Duration::ZERO,
            idempotency_window: Duration::from_secs(60),
            retention: Vec::new(),
            services: ServicesConfig::default(),
            workers: 0,
            memory_limit_bytes: 0,
            page: true,
            engine: EngineKind::Auto,
            redis: RedisConfig::default(),
            websocket_ping: Duration::from_secs(20),
            websocket_pong: Duration::from_secs(10),
            eventsource_ping: Duration::from_secs(5),
            limits: Limits::default(),
            log: LogSettings::default(),
        }
    }
}

impl Config {
    /// The engine that is meant: never [`EngineKind::Auto`].
    pub fn engine(&self) -> EngineKind {
        match self.engine {
            EngineKind::Auto if self.redis.url.is_empty() => EngineKind::Memory,
            EngineKind::Auto => EngineKind::Redis,
            named => named,
        }
    }

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first that does not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, problem: &str| Err(ConfigError::value(key, problem));
        if self.timeout < Duration::from_millis(100) || self.timeout > Duration::from_secs(3600) {
            let given = humantime::format_duration(self.timeout);
            return wrong("timeout", &format!("must be between 100ms and 1h, not {given}"));
        }
        if self.listen == self.internal_listen && self.listen.port() != 0 {
            return wrong("internal_listen", "must differ from `listen`");
        }
        if self.workers > MAX_WORKERS {
            return wrong("workers", &format!("must be at most {MAX_WORKERS}"));
        }
        self.log.check()?;
        if self.mounts.is_empty() {
            return wrong("mounts", "must name at least one path, as in [\"/bayeux\", \"/cometd=cometd\"]");
        }
        for (index, mount) in self.mounts.iter().enumerate() {
            if self.mounts[..index].iter().any(|other| other.path() == mount.path()) {
                return wrong("mounts", &format!("names `{}` twice", mount.path()));
            }
        }
        let durations = [
            ("websocket_ping", self.websocket_ping),
            ("websocket_pong", self.websocket_pong),
            ("eventsource_ping", self.eventsource_ping),
            ("limits.header_timeout", self.limits.header_timeout),
            ("limits.body_timeout", self.limits.body_timeout),
            ("limits.idle_timeout", self.limits.idle_timeout),
            ("limits.write_timeout", self.limits.write_timeout),
        ];
        for (key, duration) in durations {
            if duration < Duration::from_millis(10) || duration > MAX_DURATION {
                return wrong(key, "must be between 10ms and 1day");
            }
        }
        for (key, duration) in [
            ("handshake_spread", self.handshake_spread),
            ("drain_grace", self.drain_grace),
            ("drain_timeout", self.drain_timeout),
            ("max_connection_age", self.max_connection_age),
            ("stop_timeout", self.stop_timeout),
            ("outage_grace", self.outage_grace),
            ("max_inactivity", self.max_inactivity),
            ("idempotency_window", self.idempotency_window),
        ] {
            if duration > MAX_DURATION {
                return wrong(key, "must be at most 1day");
            }
        }
        self.limits.check()?;
        self.check_delivery()?;
        self.check_redis()
    }

    /// How long an entry of a log is kept.
    pub(super) fn log_age(&self) -> Duration {
        self.timeout * 3 + self.outage_grace
    }

    pub(super) fn memory_limits(&self) -> MemoryLimits {
        MemoryLimits {
            log_entries: self.limits.log_entries,
            log_bytes: self.limits.log_bytes,
            log_age: self.log_age(),
            total_bytes: self.limits.memory_bytes,
            retained: self.limits.retained_channels,
            idempotency_window: self.idempotency_window,
            ..MemoryLimits::default()
        }
    }

    pub(super) fn outbox_limits(&self) -> session::Limits {
        session::Limits { outbox_messages: self.limits.outbox_messages, outbox_bytes: self.limits.outbox_bytes }
    }

    pub(super) fn server_settings(&self) -> server::Settings {
        server::Settings {
            timeout: self.timeout,
            handshake_spread: self.handshake_spread,
            max_sessions: self.limits.sessions,
            max_subscriptions: self.limits.subscriptions,
            max_channel_length: self.limits.channel_bytes,
            max_channel_depth: self.limits.channel_depth,
            max_reply_bytes: self.limits.reply_bytes,
            retention: self.retention_rules(),
            idempotent: !self.idempotency_window.is_zero(),
            max_inactivity: Some(self.max_inactivity).filter(|limit| !limit.is_zero()),
        }
    }

    pub(super) fn transport_settings(&self) -> transport::Settings {
        transport::Settings {
            mounts: self.mounts.clone(),
            page: self.page,
            max_body_bytes: self.limits.body_bytes,
            batch: message::Limits { max_messages: self.limits.batch_messages, max_depth: self.limits.json_depth },
            body_timeout: self.limits.body_timeout,
            write_timeout: self.limits.write_timeout,
            idle_timeout: self.limits.idle_timeout,
            websocket_ping: self.websocket_ping,
            websocket_pong: self.websocket_pong,
            eventsource_ping: self.eventsource_ping,
            max_connection_age: self.oldest(),
        }
    }

    fn oldest(&self) -> Option<Duration> {
        Some(self.max_connection_age).filter(|age| !age.is_zero())
    }

    pub(super) fn listener_settings(&self) -> listen::Settings {
        listen::Settings {
            max_connections: self.limits.connections,
            header_timeout: self.limits.header_timeout,
            idle_timeout: self.limits.idle_timeout,
            write_timeout: self.limits.write_timeout,
            max_age: self.oldest(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_sound() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn contradictions_name_their_key() {
        let twice = Config {
            mounts: vec!["/a".parse().expect("valid"), "/a=cometd".parse().expect("valid")],
            ..Config::default()
        };
        assert_eq!(twice.check().expect_err("twice").to_string(), "`mounts`: names `/a` twice");
        let hasty = Config { timeout: Duration::ZERO, ..Config::default() };
        assert!(hasty.check().expect_err("hasty").to_string().starts_with("`timeout`"));
    }
}
