//! What is to be measured: scenario, load and targets. The command line makes it, everything else reads it.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use serde::Serialize;

use super::BenchError;

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Publishers, channels, subscribers.
    FanOut,
    /// All on one channel; everybody subscribes, some or all publish.
    ManyToMany,
    /// Pairs, with a channel for each.
    OneToOne,
    /// As fan-out or one-to-one, by long-polling.
    Polling,
    /// All connect as fast as they can.
    Storm,
    /// All connect and wait.
    Idle,
    /// Fan-out while others come and go.
    Mixed,
}

impl Scenario {
    /// The name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::FanOut => "fan-out",
            Self::ManyToMany => "many-to-many",
            Self::OneToOne => "one-to-one",
            Self::Polling => "polling",
            Self::Storm => "storm",
            Self::Idle => "idle",
            Self::Mixed => "mixed",
        }
    }

    /// Whether messages are published.
    pub fn publishes(self) -> bool {
        !matches!(self, Self::Storm | Self::Idle)
    }
}

/// How clients are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// One WebSocket each.
    Websocket,
    /// HTTP requests that are held.
    LongPolling,
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Protocol {
    /// Bayeux, to Weft, Faye and CometD.
    #[serde(rename = "bayeux")]
    Bayeux,
    /// Engine.IO 4 and Socket.IO 5, over WebSocket only.
    #[serde(rename = "socket.io")]
    SocketIo,
}

/// How much is published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Messages per second over all publishers, each due at its time whatever happened to those before.
    PerSecond(f64),
    /// As many as there is room for among those under way.
    Max,
}

impl Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::PerSecond(rate) => serializer.serialize_f64(*rate),
            Self::Max => serializer.serialize_str("max"),
        }
    }
}

/// The load. The same for every target.
#[derive(Debug, Clone, Serialize)]
pub struct Load {
    /// What the clients do.
    pub scenario: Scenario,
    /// Subscribers; pairs in one-to-one.
    pub clients: u32,
    /// Who publishes.
    pub publishers: u32,
    /// Channels.
    pub channels: u32,
    /// Channels are below this one; `None` for one of the run's own, which nobody else uses.
    pub channel: Option<String>,
    /// Length of the data, in bytes.
    pub size: usize,
    /// How much is published.
    pub rate: Rate,
    /// Messages under way for each publisher at the rate `max`; connects under way in a storm.
    pub in_flight: u32,
    /// Messages of one publish request or frame.
    pub batch: u32,
    /// How clients are connected.
    pub transport: Transport,
    /// The measured time.
    #[serde(rename = "duration_seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// Publishing before the measured time.
    #[serde(rename = "warm_up_seconds", serialize_with = "seconds")]
    pub warm_up: Duration,
    /// How long the last messages are waited for.
    #[serde(rename = "drain_seconds", serialize_with = "seconds")]
    pub drain: Duration,
    /// Clients that leave, and others that come, per second (mixed).
    pub churn: f64,
    /// Wait for a restart of the server, and for all to be back (storm).
    pub until_back: bool,
    /// Threads of the generator.
    pub threads: u32,
    /// Addresses that connections come from; empty for the system's choice.
    pub sources: Vec<IpAddr>,
    /// Start of all randomness.
    pub seed: u64,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Load {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// With a sentence for the user.
    pub fn check(&self) -> Result<(), BenchError> {
        let wrong = |text: &str| Err(BenchError::Usage(text.to_owned()));
        if self.clients == 0 || self.channels == 0 || self.threads == 0 || self.in_flight == 0 || self.batch == 0 {
            return wrong("--clients, --channels, --threads, --in-flight and --batch must be at least 1");
        }
        if self.scenario.publishes() && self.publishers == 0 {
            return wrong("--publishers must be at least 1");
        }
        if self.size < super::stamp::SHORTEST || self.size > 1 << 20 {
            return wrong("--size must be between 64 and 1048576 bytes");
        }
        if self.clients < self.channels && !self.channels.is_multiple_of(self.clients) {
            return wrong("--channels must be a multiple of --clients when there are more channels than clients");
        }
        if self.channels > 1_000_000 || self.clients > 1_000_000 || self.publishers > 1_000_000 {
            return wrong("more than a million clients, publishers or channels are not possible");
        }
        if matches!(self.rate, Rate::PerSecond(rate) if !(rate.is_finite() && rate > 0.0 && rate <= 10_000_000.0)) {
            return wrong("--rate must be a number above 0, or `max`");
        }
        if self.in_flight > 1 << 20 || self.batch > self.in_flight && self.rate == Rate::Max {
            return wrong("--in-flight must be at least --batch, and at most 1048576");
        }
        if !(self.churn.is_finite() && self.churn >= 0.0 && self.churn <= 10_000.0) {
            return wrong("--churn must be a number from 0 to 10000");
        }
        if self.channel.as_ref().is_some_and(|name| !is_channel(name)) {
            return wrong("--channel takes a channel's name, such as /bench/crowd");
        }
        if self.until_back && self.scenario != Scenario::Storm {
            return wrong("--until-back belongs to `storm`");
        }
        Ok(())
    }

    /// Streams of messages: what one publisher says on one channel.
    pub(super) fn streams(&self) -> u32 {
        self.publishers.max(self.channels)
    }

    /// Connections at the same time.
    pub fn connections(&self) -> u32 {
        let own = match self.scenario {
            Scenario::Storm | Scenario::Idle | Scenario::ManyToMany => 0,
            _ => self.publishers,
        };
        self.clients + own + self.churners()
    }

    /// Publish requests that may be under way at the same time, each on a connection of its own: those of clients that
    /// poll. At a rate there is one for each publisher as long as the server keeps up.
    pub fn requests(&self) -> u32 {
        match self.rate {
            _ if self.transport != Transport::LongPolling || !self.scenario.publishes() => 0,
            Rate::Max => self.publishers.saturating_mul(self.in_flight / self.batch),
            Rate::PerSecond(_) => self.publishers,
        }
    }

    /// Clients that come and go.
    pub(super) fn churners(&self) -> u32 {
        // Each stays for about five seconds.
        if self.scenario == Scenario::Mixed { (self.churn * 5.0).ceil() as u32 } else { 0 }
    }
}

/// Whether it is a channel below which there can be others, and needs no quoting in JSON.
fn is_channel(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let Some(segments) = name.strip_prefix('/') else { return false };
    let all_plain = segments.split('/').all(|segment| !segment.is_empty() && segment.bytes().all(plain));
    all_plain && name.len() <= 200 && !name.starts_with("/meta")
}

/// One address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// As it was given.
    pub url: String,
    pub(super) address: SocketAddr,
    /// For the `Host` header.
    pub(super) host: String,
    pub(super) path: String,
}

impl Endpoint {
    /// Whether it is on this machine, by IPv4.
    pub fn is_ipv4_loopback(&self) -> bool {
        self.address.is_ipv4() && self.address.ip().is_loopback()
    }

    /// Reads a URL and looks up its host.
    ///
    /// # Errors
    /// When it is not an `http` URL, or the host is not known.
    pub fn resolve(url: &str) -> Result<Self, BenchError> {
        let wrong = |why: &str| BenchError::Usage(format!("`{url}`: {why}"));
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("ws://"))
            .ok_or_else(|| wrong("the URL must begin with http:// (there is no TLS here)"))?;
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if host.is_empty() || path.bytes().any(|byte| byte <= b' ' || byte == b'#') {
            return Err(wrong("not a URL"));
        }
        let with_port = if host.rfind(':').is_some_and(|at| at > host.rfind(']').unwrap_or(0)) {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let mut addresses = with_port.to_socket_addrs().map_err(|error| wrong(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| wrong("the host has no address"))?;
        Ok(Self { url: url.to_owned(), address, host: host.to_owned(), path: path.to_owned() })
    }
}

/// A server, or several that share a state.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it is called in tables.
    pub name: String,
    /// Each connection (in polling each request) goes to a random one.
    pub endpoints: Vec<Endpoint>,
    /// Processes whose CPU time and memory count.
    pub pids: Vec<u32>,
    /// Processes of its Redis.
    pub redis_pids: Vec<u32>,
    /// What it speaks.
    pub protocol: Protocol,
}

impl Target {
    /// Checks it against the load.
    ///
    /// # Errors
    /// With a sentence for the user.
    pub fn check(&self, load: &Load) -> Result<(), BenchError> {
        if self.protocol == Protocol::SocketIo && load.transport == Transport::LongPolling {
            return Err(BenchError::Usage(format!("`{}`: socket.io is spoken over WebSocket only", self.name)));
        }
        for pid in self.pids.iter().chain(&self.redis_pids) {
            super::process::cpu(&[*pid])?;
        }
        Ok(())
    }
}

/// Everything to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The load.
    pub load: Load,
    /// What is measured, the first being what the others are compared with.
    pub targets: Vec<Target>,
    /// How often each is measured, in turn.
    pub rounds: u32,
}

#[cfg(test)]
mod tests {
    use super::is_channel;

    #[test]
    fn names_that_need_no_quoting_are_channels() {
        for name in ["/bench", "/bench/crowd-1", "/a/b_c/9"] {
            assert!(is_channel(name), "{name}");
        }
        for name in ["", "/", "bench", "/bench/", "//bench", "/bench/*", "/be nch", "/a\"b", "/meta/connect", "/ä"] {
            assert!(!is_channel(name), "{name}");
        }
    }
}
