//! Counters, defined in one place and resolved once: the code that counts never looks a label up. Labels are closed
//! sets; no channel, session or address ever becomes one.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Bounds that can be reached; label `limit` of `weft_limit_reached_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Limit {
    /// A body or frame was larger than allowed.
    Body,
    /// A batch had more messages than allowed.
    Batch,
    /// JSON was nested more deeply than allowed.
    Depth,
    /// A session wanted more subscriptions than allowed.
    Subscriptions,
    /// A channel name was longer or deeper than allowed.
    Channel,
    /// An outbox was full: its session reads from the log.
    Outbox,
    /// A request's head or body took too long.
    RequestTime,
    /// A connection was idle for too long.
    Idle,
    /// A peer did not take what was written to it.
    WriteTime,
    /// There were as many sessions as allowed.
    Sessions,
    /// There were as many connections as allowed.
    Connections,
    /// The engine's memory for messages was used up.
    EngineMemory,
    /// There were as many retained channels as allowed.
    RetainedChannels,
}

impl Limit {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Body, "body"),
        (Self::Batch, "batch"),
        (Self::Depth, "depth"),
        (Self::Subscriptions, "subscriptions"),
        (Self::Channel, "channel"),
        (Self::Outbox, "outbox"),
        (Self::RequestTime, "request_time"),
        (Self::Idle, "idle"),
        (Self::WriteTime, "write_time"),
        (Self::Sessions, "sessions"),
        (Self::Connections, "connections"),
        (Self::EngineMemory, "engine_memory"),
        (Self::RetainedChannels, "retained_channels"),
    ];
}

/// What a client asked for; label `kind` of `weft_messages_received_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Kind {
    /// `/meta/handshake`
    Handshake,
    /// `/meta/connect`
    Connect,
    /// `/meta/subscribe`
    Subscribe,
    /// `/meta/unsubscribe`
    Unsubscribe,
    /// `/meta/disconnect`
    Disconnect,
    /// Everything outside `/meta`.
    Publish,
    /// An unknown meta channel.
    Unknown,
}

impl Kind {
    const ALL: [(Self, &'static str); 7] = [
        (Self::Handshake, "handshake"),
        (Self::Connect, "connect"),
        (Self::Subscribe, "subscribe"),
        (Self::Unsubscribe, "unsubscribe"),
        (Self::Disconnect, "disconnect"),
        (Self::Publish, "publish"),
        (Self::Unknown, "unknown"),
    ];
}

/// All counters of one node.
pub struct Metrics {
    registry: Registry,
    limits: Vec<IntCounter>,
    received: Vec<IntCounter>,
    /// Messages that were answered `successful: false`.
    pub refused: IntCounter,
    /// Requests and frames that held no Bayeux messages.
    pub malformed: IntCounter,
    /// Copies of messages handed to clients.
    pub delivered: IntCounter,
    /// Messages stored.
    pub published: IntCounter,
    /// Sessions ended by expiry.
    pub expired: IntCounter,
    /// Sessions ended because the log no longer held what they missed.
    pub gaps: IntCounter,
    /// Sessions ended because their clients did nothing.
    pub inactive: IntCounter,
    /// Gaps told to clients that go on all the same.
    pub gaps_told: IntCounter,
    /// Messages read for replays.
    pub replayed: IntCounter,
    /// Publishes that had been stored before.
    pub repeated: IntCounter,
    /// Calls answered by a service's handler.
    pub service_calls: IntCounter,
    /// Polls whose reply did not leave the node completely.
    pub replies_broken: IntCounter,
    /// Engine calls that failed.
    pub engine_errors: IntCounter,
    /// Open connections of the public listener.
    pub connections: IntGauge,
    /// Sessions that the engine knows, in all nodes; as of the last second.
    pub sessions: IntGauge,
    /// Connections accepted.
    pub accepted: IntCounter,
}

impl Metrics {
    /// New counters at zero, in a registry of their own.
    ///
    /// # Errors
    /// When two metrics have one name, which the first start of a build shows.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let family = |name: &str, help: &str, label: &str, values: &[&str]| -> Result<_, prometheus::Error> {
            let family = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(family.clone()))?;
            Ok(values.iter().map(|value| family.with_label_values(&[*value])).collect::<Vec<_>>())
        };
        let connections = IntGauge::new("weft_connections", "Open connections of the public listener.")?;
        registry.register(Box::new(connections.clone()))?;
        let sessions = IntGauge::new("weft_sessions", "Sessions in the engine, the nodes' own included.")?;
        registry.register(Box::new(sessions.clone()))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Self {
            limits: family(
                "weft_limit_reached_total",
                "Times that a bound of this node was reached.",
                "limit",
                &Limit::ALL.map(|(_, name)| name),
            )?,
            received: family(
                "weft_messages_received_total",
                "Bayeux messages received from clients.",
                "kind",
                &Kind::ALL.map(|(_, name)| name),
            )?,
            refused: counter("weft_messages_refused_total", "Messages answered with an error.")?,
            malformed: counter("weft_requests_malformed_total", "Requests and frames that held no Bayeux messages.")?,
            delivered: counter("weft_messages_delivered_total", "Copies of messages handed to clients.")?,
            published: counter("weft_messages_published_total", "Messages stored.")?,
            expired: counter("weft_sessions_expired_total", "Sessions ended because the client was not heard of.")?,
            gaps: counter(
                "weft_sessions_gap_total",
                "Sessions ended because the log no longer held what they missed.",
            )?,
            inactive: counter("weft_sessions_inactive_total", "Sessions ended because their clients did nothing.")?,
            gaps_told: counter("weft_gaps_told_total", "Gaps told to clients that resume.")?,
            replayed: counter("weft_messages_replayed_total", "Messages read for replays.")?,
            repeated: counter("weft_publishes_repeated_total", "Publishes that had been stored before.")?,
            service_calls: counter("weft_service_calls_total", "Calls answered by a service's handler.")?,
            replies_broken: counter(
                "weft_replies_broken_total",
                "Poll replies that did not leave the node completely.",
            )?,
            engine_errors: counter("weft_engine_errors_total", "Engine calls that failed.")?,
            accepted: counter("weft_connections_accepted_total", "Connections accepted by the public listener.")?,
            connections,
            sessions,
            registry,
        })
    }

    /// Counts a bound that was reached.
    pub fn limit(&self, limit: Limit) {
        self.limits[limit as usize].inc();
    }

    /// Counts a message from a client.
    pub fn received(&self, kind: Kind) {
        self.received[kind as usize].inc();
    }

    /// The Prometheus text format.
    pub fn render(&self) -> String {
        let encoded = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather());
        encoded.unwrap_or_else(|error| {
            tracing::error!(%error, "could not encode metrics");
            String::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_where_their_enum_says() {
        assert!(Limit::ALL.iter().enumerate().all(|(index, (limit, _))| *limit as usize == index));
        assert!(Kind::ALL.iter().enumerate().all(|(index, (kind, _))| *kind as usize == index));
        let metrics = Metrics::new().expect("names are distinct");
        metrics.limit(Limit::Sessions);
        metrics.received(Kind::Publish);
        let text = metrics.render();
        assert!(text.contains("weft_limit_reached_total{limit=\"sessions\"} 1"), "{text}");
        assert!(text.contains("weft_messages_received_total{kind=\"publish\"} 1"), "{text}");
    }
}
