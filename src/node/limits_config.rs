//! The configuration of bounds: the table `limits`.

use std::time::Duration;

use serde::Deserialize;

use super::config::ConfigError;
use super::written::{duration, write_duration};

/// Bounds of a node. At each, the peer gets a clear error and a counter rises (`docs/design.md`, "Bounds").
#[derive(Debug, Clone, PartialEq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request body or WebSocket message.
    pub body_bytes: usize,
    /// Messages in one request or frame.
    pub batch_messages: usize,
    /// Nesting of arrays and objects in a request or frame.
    pub json_depth: usize,
    /// Sessions.
    pub sessions: usize,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// Bytes of a channel name.
    pub channel_bytes: usize,
    /// Segments of a channel name.
    pub channel_depth: usize,
    /// Messages that wait for one client before it reads from the log.
    pub outbox_messages: usize,
    /// Bytes that wait for one client before it reads from the log.
    pub outbox_bytes: usize,
    /// Bytes of messages in one poll's reply.
    pub reply_bytes: usize,
    /// Client connections.
    pub connections: usize,
    /// Time for a request's head, from its first byte.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub header_timeout: Duration,
    /// Time for a request's body.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub body_timeout: Duration,
    /// Time that a connection may be open without a request, or a socket without a session.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub idle_timeout: Duration,
    /// Time that a peer may take nothing of what is written to it.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    pub write_timeout: Duration,
    /// Entries of one log.
    pub log_entries: usize,
    /// Channels that are kept for subscribers to come.
    pub retained_channels: usize,
    /// Bytes of one log (memory engine).
    pub log_bytes: usize,
    /// Bytes of all logs (memory engine).
    pub memory_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            batch_messages: 1000,
            json_depth: 100,
            sessions: 1_000_000,
            subscriptions: 1000,
            channel_bytes: 512,
            channel_depth: 32,
            outbox_messages: 1000,
            outbox_bytes: 1 << 20,
            reply_bytes: 1 << 20,
            connections: 100_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            log_entries: 10_000,
            retained_channels: 100_000,
            log_bytes: 64 << 20,
            memory_bytes: 1 << 30,
        }
    }
}

impl Limits {
    /// Whether none is too small to work with.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("limits.body_bytes", self.body_bytes, 1024),
            ("limits.batch_messages", self.batch_messages, 1),
            ("limits.json_depth", self.json_depth, 4),
            ("limits.sessions", self.sessions, 1),
            ("limits.subscriptions", self.subscriptions, 1),
            ("limits.channel_bytes", self.channel_bytes, 16),
            ("limits.channel_depth", self.channel_depth, 4),
            ("limits.outbox_messages", self.outbox_messages, 1),
            ("limits.outbox_bytes", self.outbox_bytes, 1024),
            ("limits.reply_bytes", self.reply_bytes, 1024),
            ("limits.connections", self.connections, 1),
            ("limits.log_entries", self.log_entries, 1),
            ("limits.log_bytes", self.log_bytes, 1024),
            ("limits.memory_bytes", self.memory_bytes, 1024),
        ];
        for (key, value, least) in counts {
            if value < least {
                return Err(ConfigError::value(key, format!("must be at least {least}")));
            }
        }
        if self.channel_depth > 1000 {
            return Err(ConfigError::value("limits.channel_depth", "must be at most 1000"));
        }
        Ok(())
    }
}
