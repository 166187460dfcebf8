//! What a node counts and measures, defined in one place and resolved once: the code that counts looks no label up.
//! Labels are closed sets; no channel, session or address ever becomes one. `docs/metrics.md` explains each.

mod labels;

use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Error, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use tokio::time::Instant;

pub use labels::{Carrier, Code, Kind, Limit, LogRead, Moved, RedisLink};

/// Seconds: from what a machine needs at rest to what nobody waits for.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds of work without waiting.
const SHORT_SECONDS: &[f64] = &[0.000_01, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];
/// Receivers.
const RECEIVERS: &[f64] = &[0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

/// What all attachments of a node are like at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Census {
    /// How many there are, by [`Carrier`].
    pub attachments: [i64; 4],
    /// Those whose outbox was full: they read from the logs.
    pub behind: i64,
    /// Messages in outboxes.
    pub outbox_messages: i64,
    /// Bytes in outboxes.
    pub outbox_bytes: i64,
}

/// Everything that one node counts and measures.
pub struct Metrics {
    registry: Registry,
    limits: Vec<IntCounter>,
    received: Vec<IntCounter>,
    refused: Vec<IntCounter>,
    moved: Vec<IntCounter>,
    log_reads: Vec<IntCounter>,
    reconnects: Vec<IntCounter>,
    attachments: Vec<IntGauge>,
    behind: IntGauge,
    outbox_messages: IntGauge,
    outbox_bytes: IntGauge,
    redis_calls: IntCounterVec,
    redis_seconds: HistogramVec,
    build: IntGaugeVec,
    canary_age: Gauge,
    canary_round_trip: Histogram,
    /// When the last canary came back.
    canary_home: Mutex<Instant>,
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
    /// Times that something sent became due again.
    pub rewinds: IntCounter,
    /// Sessions whose progress was written.
    pub commits: IntCounter,
    /// Engine calls that failed.
    pub engine_errors: IntCounter,
    /// Open connections of the public listener.
    pub connections: IntGauge,
    /// How many there may be.
    pub connections_limit: IntGauge,
    /// Sessions that the engine knows, in all nodes; as of the last second.
    pub sessions: IntGauge,
    /// Connections accepted.
    pub accepted: IntCounter,
    /// Bytes read from clients.
    pub received_bytes: IntCounter,
    /// Bytes written to clients.
    pub sent_bytes: IntCounter,
    /// 1 while messages flow and no limit is near.
    pub ready: IntGauge,
    /// 1 from the moment that the node sends its clients away.
    pub draining: IntGauge,
    feed_lag: Histogram,
    delivery: Histogram,
    /// Receivers of one message, or of a few of one channel that came together.
    pub fanout_receivers: Histogram,
    /// Seconds that it took to hand on what the feed brought at once.
    pub fanout: Histogram,
}

/// Registers metrics, each once.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: Result<C, Error>) -> Result<C, Error> {
        let made = made?;
        self.0.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        self.add(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.add(IntGauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, Error> {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn counters(&self, name: &str, help: &str, label: &str, values: &[&str]) -> Result<Vec<IntCounter>, Error> {
        let family = self.add(IntCounterVec::new(Opts::new(name, help), &[label]))?;
        Ok(values.iter().map(|value| family.with_label_values(&[*value])).collect())
    }
}

impl Metrics {
    /// New ones at zero, in a registry of their own.
    ///
    /// # Errors
    /// When two metrics have one name, which the first start of a build shows.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let make = Maker(&registry);
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let attachments = make.add(IntGaugeVec::new(
            Opts::new("weft_attachments", "Sessions that this node holds, by what holds them."),
            &["transport"],
        ))?;
        Ok(Self {
            build: make.add(IntGaugeVec::new(
                Opts::new("weft_build_info", "1, with the program's version and the engine in use."),
                &["version", "engine"],
            ))?,
            ready: make.gauge("weft_ready", "1 while messages flow and no limit is near, else 0.")?,
            draining: make.gauge("weft_draining", "1 once the node sends its clients away.")?,
            canary_age: make
                .add(Gauge::new("weft_canary_age_seconds", "Time since a message to the node itself came back."))?,
            canary_round_trip: make.histogram(
                "weft_canary_round_trip_seconds",
                "From the publish of a message to the node itself to its arrival.",
                SECONDS,
            )?,
            canary_home: Mutex::new(Instant::now()),
            connections: make.gauge("weft_connections", "Open connections of the public listener.")?,
            connections_limit: make.gauge("weft_connections_limit", "Connections that there may be.")?,
            accepted: make
                .counter("weft_connections_accepted_total", "Connections accepted by the public listener.")?,
            attachments: Carrier::NAMES.iter().map(|name| attachments.with_label_values(&[*name])).collect(),
            behind: make
                .gauge("weft_attachments_behind", "Attachments whose outbox was full: they read from the log.")?,
            outbox_messages: make.gauge("weft_outbox_messages", "Messages that wait in this node for its clients.")?,
            outbox_bytes: make
                .gauge("weft_outbox_bytes", "Bytes of messages that wait in this node for its clients.")?,
            moved: make.counters(
                "weft_attachments_moved_total",
                "Clients that were sent to another node.",
                "reason",
                Moved::NAMES,
            )?,
            sessions: make.gauge("weft_sessions", "Sessions in the engine, the nodes' own included.")?,
            expired: make
                .counter("weft_sessions_expired_total", "Sessions ended because the client was not heard of.")?,
            inactive: make
                .counter("weft_sessions_inactive_total", "Sessions ended because their clients did nothing.")?,
            gaps: make.counter(
                "weft_sessions_gap_total",
                "Sessions ended because the log no longer held what they missed.",
            )?,
            gaps_told: make.counter("weft_gaps_told_total", "Gaps told to clients that resume.")?,
            received: make.counters(
                "weft_messages_received_total",
                "Bayeux messages received from clients.",
                "kind",
                Kind::NAMES,
            )?,
            refused: make.counters(
                "weft_messages_refused_total",
                "Messages answered with an error.",
                "code",
                Code::NAMES,
            )?,
            malformed: make
                .counter("weft_requests_malformed_total", "Requests and frames that held no Bayeux messages.")?,
            published: make.counter("weft_messages_published_total", "Messages stored.")?,
            repeated: make.counter("weft_publishes_repeated_total", "Publishes that had been stored before.")?,
            delivered: make.counter("weft_messages_delivered_total", "Copies of messages handed to clients.")?,
            replayed: make.counter("weft_messages_replayed_total", "Messages read for replays.")?,
            service_calls: make.counter("weft_service_calls_total", "Calls answered by a service's handler.")?,
            replies_broken: make
                .counter("weft_replies_broken_total", "Poll replies that did not leave the node completely.")?,
            rewinds: make.counter("weft_rewinds_total", "Times that what was sent to a client became due again.")?,
            commits: make.counter("weft_commits_total", "Sessions whose confirmed progress was written.")?,
            received_bytes: make.counter("weft_received_bytes_total", "Bytes read from client connections.")?,
            sent_bytes: make.counter("weft_sent_bytes_total", "Bytes written to client connections.")?,
            feed_lag: make.histogram(
                "weft_feed_lag_seconds",
                "From the storing of a message to its arrival on this node's feed, by both clocks.",
                SECONDS,
            )?,
            delivery: make.histogram(
                "weft_delivery_seconds",
                "From the storing of a message to when this node had handed it to its clients' connections.",
                SECONDS,
            )?,
            fanout_receivers: make.histogram(
                "weft_fanout_receivers",
                "Receivers on this node of messages that came together on one channel.",
                RECEIVERS,
            )?,
            fanout: make.histogram(
                "weft_fanout_seconds",
                "Time to hand on what the feed brought at once.",
                SHORT_SECONDS,
            )?,
            log_reads: make.counters(
                "weft_log_reads_total",
                "Reads of the logs for a session, by what made them necessary.",
                "reason",
                LogRead::NAMES,
            )?,
            limits: make.counters(
                "weft_limit_reached_total",
                "Times that a bound of this node was reached.",
                "limit",
                Limit::NAMES,
            )?,
            engine_errors: make.counter("weft_engine_errors_total", "Engine calls that failed.")?,
            redis_calls: make.add(IntCounterVec::new(
                Opts::new("weft_redis_calls_total", "Scripts run in Redis."),
                &["script", "outcome"],
            ))?,
            redis_seconds: make.add(HistogramVec::new(
                HistogramOpts::new(
                    "weft_redis_call_seconds",
                    "Time that a script took, its way and its wait included.",
                )
                .buckets(SECONDS.to_vec()),
                &["script"],
            ))?,
            reconnects: make.counters(
                "weft_redis_reconnects_total",
                "Connections to Redis that replaced one.",
                "connection",
                RedisLink::NAMES,
            )?,
            registry,
        })
    }

    /// Says which program this is, and on which engine.
    pub fn describe(&self, engine: &str) {
        self.build.with_label_values(&[env!("CARGO_PKG_VERSION"), engine]).set(1);
    }

    /// Counts a bound that was reached.
    pub fn limit(&self, limit: Limit) {
        self.limits[limit as usize].inc();
    }

    /// Counts a message from a client.
    pub fn received(&self, kind: Kind) {
        self.received[kind as usize].inc();
    }

    /// Counts a message that was answered `successful: false`, with this error.
    pub fn refused(&self, error: &str) {
        self.refused[Code::of(error) as usize].inc();
    }

    /// Counts a client that was sent elsewhere.
    pub fn moved(&self, reason: Moved) {
        self.moved[reason as usize].inc();
    }

    /// Counts a read of the logs.
    pub fn log_read(&self, reason: LogRead) {
        self.log_reads[reason as usize].inc();
    }

    /// Counts a connection to Redis that replaced one.
    pub fn reconnected(&self, link: RedisLink) {
        self.reconnects[link as usize].inc();
    }

    /// Lets a script's metrics exist before its first call.
    pub fn expect_script(&self, script: &str) {
        for outcome in ["ok", "error"] {
            self.redis_calls.with_label_values(&[script, outcome]);
        }
        self.redis_seconds.with_label_values(&[script]);
    }

    /// Counts a call of a script that took so long.
    pub fn redis_call(&self, script: &str, ok: bool, took: Duration) {
        self.redis_calls.with_label_values(&[script, if ok { "ok" } else { "error" }]).inc();
        self.redis_seconds.with_label_values(&[script]).observe(took.as_secs_f64());
    }

    /// Notes that a canary came back, after so long.
    pub fn canary_is_home(&self, round_trip: Duration) {
        *self.canary_home.lock() = Instant::now();
        self.canary_round_trip.observe(round_trip.as_secs_f64());
    }

    /// Notes that a message has arrived on the feed `now` (milliseconds since 1970) that was stored at `millis`.
    pub fn arrived(&self, now: u64, millis: u64) {
        self.feed_lag.observe(now.saturating_sub(millis) as f64 / 1000.0);
    }

    /// Notes that a message that was stored at `millis` has been handed on `now`.
    pub fn handed_on(&self, now: u64, millis: u64) {
        self.delivery.observe(now.saturating_sub(millis) as f64 / 1000.0);
    }

    /// The Prometheus text format; `census` is of this moment.
    pub fn render(&self, census: &Census) -> String {
        self.attachments.iter().zip(census.attachments).for_each(|(gauge, count)| gauge.set(count));
        self.behind.set(census.behind);
        self.outbox_messages.set(census.outbox_messages);
        self.outbox_bytes.set(census.outbox_bytes);
        self.canary_age.set(self.canary_home.lock().elapsed().as_secs_f64());
        let encoded = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather());
        encoded.unwrap_or_else(|error| {
            tracing::error!(%error, "could not encode metrics");
            String::new()
        })
    }
}

/// Milliseconds since 1970, by this machine's clock.
pub fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_where_their_enum_says() {
        let metrics = Metrics::new().expect("names are distinct");
        metrics.limit(Limit::Sessions);
        metrics.received(Kind::Publish);
        metrics.refused("403:/x:Forbidden channel");
        metrics.redis_call("publish", false, Duration::from_millis(3));
        metrics.describe("memory");
        let text = metrics.render(&Census { attachments: [1, 2, 3, 4], ..Census::default() });
        for line in [
            "weft_limit_reached_total{limit=\"sessions\"} 1",
            "weft_messages_received_total{kind=\"publish\"} 1",
            "weft_messages_refused_total{code=\"403\"} 1",
            "weft_redis_calls_total{outcome=\"error\",script=\"publish\"} 1",
            "weft_attachments{transport=\"eventsource\"} 3",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
    }
}
