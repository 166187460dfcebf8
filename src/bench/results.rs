//! What was measured, in the form in which it is written as JSON. A part that does not apply is `null`.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::plan::{Load, Protocol, Rate, Target, Transport};
use super::process::Machine;

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    /// Half of all are at most this.
    pub p50: f64,
    /// 90 of 100 are at most this.
    pub p90: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// 999 of 1000 are at most this.
    pub p999: f64,
    /// The largest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// How many there were.
    pub count: u64,
}

impl Times {
    /// Reads a histogram; `None` if it is empty.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        // Values up to ten minutes in microseconds are exact as floats.
        let at = |quantile| histogram.value_at_quantile(quantile) as f64;
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64,
            mean: histogram.mean(),
            count: histogram.len(),
        })
    }
}

/// What the server needed in the measured time.
#[derive(Debug, Clone, Serialize)]
pub struct Server {
    /// User and kernel, all processes and threads.
    pub cpu_seconds: f64,
    /// The same for each delivered message.
    pub cpu_us_per_delivery: Option<f64>,
    /// Resident memory at the end.
    pub rss_bytes: u64,
    /// Anonymous memory at the end.
    pub anonymous_bytes: u64,
    /// Growth of the resident memory for each connection.
    pub bytes_per_connection: Option<f64>,
    /// Growth of the anonymous memory for each connection.
    pub anonymous_bytes_per_connection: Option<f64>,
}

/// What Redis needed in the measured time.
#[derive(Debug, Clone, Serialize)]
pub struct Redis {
    /// User and kernel.
    pub cpu_seconds: f64,
    /// The same for each delivered message.
    pub cpu_us_per_delivery: Option<f64>,
    /// The same for each published message.
    pub cpu_us_per_publish: Option<f64>,
}

/// What this program needed in the measured time.
#[derive(Debug, Clone, Serialize)]
pub struct Generator {
    /// User and kernel, all threads.
    pub cpu_seconds: f64,
    /// Share of the time that its busiest thread was at work, from 0 to 1.
    pub busiest_thread: f64,
    /// How late messages were sent; this is part of the latency.
    pub lag_us: Option<Times>,
}

/// How clients connected.
#[derive(Debug, Clone, Serialize)]
pub struct Connects {
    /// Clients that stood.
    pub count: u64,
    /// Clients that did not come to stand.
    pub failed: u64,
    /// Sessions that the server did not know any more.
    pub refused: u64,
    /// From the first packet until all stood.
    pub seconds: f64,
    /// Clients per second.
    pub per_second: f64,
    /// CPU time of the server for each.
    pub cpu_us_per_connect: Option<f64>,
    /// CPU time of Redis for each.
    pub redis_cpu_us_per_connect: Option<f64>,
    /// From the first packet of a client until it stood.
    pub latency_us: Option<Times>,
    /// Its parts: `tcp`, `upgrade`, `handshake`, `subscribe`, `connect`.
    pub steps_us: std::collections::BTreeMap<&'static str, Times>,
    /// From when the server accepted connections again until the last client was back.
    pub back_seconds: Option<f64>,
    /// From when the first connection broke until the last client was back.
    pub back_from_break_seconds: Option<f64>,
}

/// A second of the measured time.
#[derive(Debug, Clone, Serialize)]
pub struct Moment {
    /// Since the start of the measured time.
    pub at_seconds: f64,
    /// Messages published in this second.
    pub published: u64,
    /// Messages delivered in this second.
    pub delivered: u64,
    /// CPU time of the server in this second.
    pub server_cpu_seconds: Option<f64>,
    /// CPU time of Redis in this second.
    pub redis_cpu_seconds: Option<f64>,
    /// Latency of what came in this second.
    pub p50_us: Option<f64>,
    /// Latency of what came in this second.
    pub p99_us: Option<f64>,
}

/// One measurement of one target. Counts of messages include warm-up and drain; rates, CPU time and latencies are of
/// the measured time.
#[derive(Debug, Clone, Serialize)]
pub struct Round {
    /// The measured time.
    pub seconds: f64,
    /// Messages sent.
    pub published: u64,
    /// Messages that the server refused.
    pub refused: u64,
    /// Messages whose answer did not come; whether they were stored is unknown, and nobody expects them.
    pub unanswered: u64,
    /// Messages that were due and could not be sent.
    pub unsent: u64,
    /// Messages that came to receivers that stayed, for the first time.
    pub delivered: u64,
    /// What they were to get.
    pub expected: u64,
    /// What they did not get.
    pub lost: u64,
    /// What they got again.
    pub duplicate: u64,
    /// What came after a later message of its publisher.
    pub out_of_order: u64,
    /// What came to a receiver that had not asked for it.
    pub unexpected: u64,
    /// Clients that could not connect, or broke.
    pub connection_failures: u64,
    /// The last failure, in words.
    pub failure: Option<String>,
    /// Requests that failed and were repeated (long-polling).
    pub request_failures: u64,
    /// Clients that came and went.
    pub churned: u64,
    /// Messages that they got.
    pub churn_delivered: u64,
    /// Messages that they missed between their first and their last one.
    pub churn_lost: u64,
    /// Messages per second.
    pub publish_rate: Option<f64>,
    /// Messages per second.
    pub delivery_rate: Option<f64>,
    /// From when a message was due until it was received.
    pub latency_us: Option<Times>,
    /// From when a message was due until its publisher was answered.
    pub publish_latency_us: Option<Times>,
    /// The server's processes, if their ids were given.
    pub server: Option<Server>,
    /// The processes of its Redis, if their ids were given.
    pub redis: Option<Redis>,
    /// This program.
    pub generator: Generator,
    /// How clients connected.
    pub connects: Connects,
    /// The measured time, second by second.
    pub series: Vec<Moment>,
}

impl Round {
    /// Whether nothing was lost, every publish was answered and no connection failed.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.churn_lost == 0 && self.unanswered == 0 && self.connection_failures == 0
    }
}

/// Everything about one target.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub urls: Vec<String>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Each measurement.
    pub rounds: Vec<Round>,
    /// A round made of the medians of all figures.
    pub median: serde_json::Value,
}

impl Measured {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            name: target.name.clone(),
            urls: target.endpoints.iter().map(|endpoint| endpoint.url.clone()).collect(),
            protocol: target.protocol,
            rounds: Vec::new(),
            median: serde_json::Value::Null,
        }
    }
}

/// How a target compares with the first one: medians of what was divided within each round.
#[derive(Debug, Clone, Serialize)]
pub struct Ratios {
    /// Which target.
    pub target: String,
    /// The first target.
    pub to: String,
    /// CPU time of the server for each delivered message.
    pub server_cpu_per_delivery: Option<f64>,
    /// CPU time of Redis for each delivered message.
    pub redis_cpu_per_delivery: Option<f64>,
    /// The 99th percentile of the latency.
    pub latency_p99: Option<f64>,
    /// Delivered messages per second.
    pub rate: Option<f64>,
    /// CPU time of the server for each connect.
    pub connect_cpu: Option<f64>,
    /// Connects per second.
    pub connect_rate: Option<f64>,
    /// Memory of the server for each connection.
    pub memory: Option<f64>,
}

/// The whole document.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of this program.
    pub weft: &'static str,
    /// When it began, in UTC.
    pub date: String,
    /// Where it ran.
    pub machine: Machine,
    /// The command line.
    pub command: String,
    /// Name of the scenario.
    pub scenario: &'static str,
    /// Start of all randomness.
    pub seed: u64,
    /// The load.
    pub settings: Load,
    /// What was measured.
    pub targets: Vec<Measured>,
    /// Comparisons with the first target.
    pub ratios: Vec<Ratios>,
    /// What makes the figures doubtful, in words.
    pub warnings: Vec<String>,
    /// It was ended by the user before its time.
    pub interrupted: bool,
}

impl Report {
    /// Whether messages were published.
    pub fn publishes(&self) -> bool {
        self.settings.scenario.publishes()
    }

    /// The load in a few words.
    pub fn load_in_words(&self) -> String {
        let load = &self.settings;
        let transport = match load.transport {
            Transport::Websocket => "WebSocket",
            Transport::LongPolling => "long-polling",
        };
        if !self.publishes() {
            return format!("{} clients by {transport}", load.clients);
        }
        let rate = match load.rate {
            Rate::PerSecond(rate) => format!("{rate} messages/s"),
            Rate::Max => format!("max ({} in flight each)", load.in_flight),
        };
        format!(
            "{} publishers, {} channels, {} subscribers by {transport}; {} bytes, {rate}, {:?}",
            load.publishers, load.channels, load.clients, load.size, load.duration
        )
    }
}
