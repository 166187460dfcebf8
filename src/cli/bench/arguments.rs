//! What `weft bench` takes, and the plan that it makes of it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};

use crate::bench::{Endpoint, Load, Plan, Protocol, Rate, Scenario, Target, Transport};

/// The address of a node with default settings.
const DEFAULT_URL: &str = "http://127.0.0.1:8000/bayeux";
/// Connections that come from one address. A system has some 28,000 ports or more, but finds a free one slowly when
/// half of them are taken.
const PER_SOURCE: u32 = 10_000;
/// Files that are not connections.
const OTHER_FILES: u64 = 100;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScenarioName {
    /// P publishers -> channels -> N subscribers.
    FanOut,
    /// N clients on one channel: all subscribe, P of them (default all) publish.
    ManyToMany,
    /// N pairs of a publisher and a subscriber, each with a channel of its own.
    OneToOne,
    /// As fan-out (or, with --channels N, one-to-one) by long-polling, each request to a random one of the URLs.
    Polling,
    /// N clients connect as fast as they can.
    Storm,
    /// N clients connect and wait: what a connection costs in memory.
    Idle,
    /// Fan-out while other clients come and go.
    Mixed,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TransportName {
    /// A socket for each client.
    Websocket,
    /// Requests that are held.
    LongPolling,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtocolName {
    /// Weft, Faye, CometD.
    Bayeux,
    /// Engine.IO 4 and Socket.IO 5 over WebSocket.
    #[value(name = "socket.io")]
    SocketIo,
}

/// Measure a server under load, or compare several. Exit codes: 0 all is well, 1 messages were lost, connections
/// failed or a server could not be reached, 2 bad usage.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct BenchArguments {
    /// What the clients do.
    scenario: ScenarioName,
    /// Address of the server; repeat it for several that share a state: each connection (in polling each request) goes
    /// to a random one [default: http://127.0.0.1:8000/bayeux].
    #[arg(long = "url", value_name = "URL")]
    urls: Vec<String>,
    /// Process of the server, for its CPU time and memory; may be repeated.
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// Process of the server's Redis; may be repeated.
    #[arg(long = "redis-pid", value_name = "PID")]
    redis_pids: Vec<u32>,
    /// What the server speaks.
    #[arg(long, value_enum, default_value = "bayeux")]
    protocol: ProtocolName,
    /// One of several servers to compare, instead of the four options above: 'name=faye url=http://127.0.0.1:9000/bayeux
    /// url=... pid=1 pid=2 redis-pid=3 protocol=bayeux'. Repeat it; the first is what the others are compared with.
    #[arg(long = "target", value_name = "TARGET", conflicts_with_all = ["urls", "pids", "redis_pids", "protocol"])]
    targets: Vec<String>,
    /// How often each target is measured, in turn [default: 1, or 3 with several targets].
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Subscribers; pairs in one-to-one [default: 100].
    #[arg(long, value_name = "N", default_value_t = 100, hide_default_value = true)]
    clients: u32,
    /// Publishers [default: 1; in many-to-many all; otherwise one for each channel].
    #[arg(long, value_name = "P")]
    publishers: Option<u32>,
    /// Channels, over which subscribers and publishers are spread evenly [default: 1].
    #[arg(long, value_name = "C")]
    channels: Option<u32>,
    /// Name the channels CHANNEL/0, CHANNEL/1 and so on, so that the clients of several generators can share them. Each
    /// counts its own messages alone [default: channels that nobody else uses].
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Length of the data of a message, which is one string, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    size: usize,
    /// Messages per second over all publishers, or `max`: as many as are delivered with --in-flight under way
    /// [default: 100].
    #[arg(long, value_name = "R|max", allow_negative_numbers = true)]
    rate: Option<String>,
    /// With --rate max: messages of one publisher that are not delivered to all and answered [default: 16, or 1 with
    /// more than 16 publishers]. In storm: connects under way [default: 100].
    #[arg(long, value_name = "W")]
    in_flight: Option<u32>,
    /// Messages of one publish frame or request.
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch: u32,
    /// How clients are connected [default: websocket; in polling long-polling].
    #[arg(long, value_enum)]
    transport: Option<TransportName>,
    /// The measured time. In storm --until-back: how long the restart is waited for [default: 10s; storm 60s].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Publishing before the measured time.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "2s")]
    warm_up: Duration,
    /// How long the last messages are waited for.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10s")]
    drain: Duration,
    /// In mixed: clients that leave, and others that come, per second.
    #[arg(long, value_name = "R", default_value_t = 10.0, allow_negative_numbers = true)]
    churn: f64,
    /// In storm: once all stand, wait until the server breaks (restart it), and until all are back.
    #[arg(long)]
    until_back: bool,
    /// Threads of the generator.
    #[arg(long, value_name = "T", default_value_t = 1)]
    threads: u32,
    /// Addresses that connections come from, with commas [default: the system's choice; 127.0.0.2, 127.0.0.3 and so on
    /// for many connections to loopback].
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    sources: Vec<IpAddr>,
    /// Start of all randomness [default: by time].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write everything as JSON to this file, or to standard output instead of the table.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(super) json: Option<PathBuf>,
    /// Write a page with pictures to this file.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Show no progress.
    #[arg(long)]
    pub(super) quiet: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string()),
        Err(_) => humantime::parse_duration(text).map_err(|error| format!("{error}; use 45s, 500ms or plain seconds")),
    }
}

impl BenchArguments {
    /// The plan, checked; `files` is how many files this process may have open.
    pub(super) fn plan(&self, files: u64) -> anyhow::Result<Plan> {
        let targets = self.targets()?;
        let mut load = self.load(&targets)?;
        load.check()?;
        let connections = load.connections().saturating_add(load.requests());
        let needed = u64::from(connections) + OTHER_FILES;
        if needed > files {
            let less = match load.rate {
                Rate::Max if load.requests() > 0 => {
                    "run several processes, or have fewer requests under way (`--in-flight`)"
                }
                _ => "or run several processes",
            };
            bail!(
                "{connections} connections need about {needed} open files, this process may have {files}: raise the \
                 limit (`ulimit -n`), {less}"
            );
        }
        if load.sources.is_empty() {
            load.sources = sources(&targets, connections);
        }
        let rounds = self.rounds.unwrap_or(if targets.len() > 1 { 3 } else { 1 });
        if rounds == 0 {
            bail!("--rounds must be at least 1");
        }
        for target in &targets {
            target.check(&load)?;
        }
        Ok(Plan { load, targets, rounds })
    }

    fn load(&self, targets: &[Target]) -> anyhow::Result<Load> {
        let scenario = match self.scenario {
            ScenarioName::FanOut => Scenario::FanOut,
            ScenarioName::ManyToMany => Scenario::ManyToMany,
            ScenarioName::OneToOne => Scenario::OneToOne,
            ScenarioName::Polling => Scenario::Polling,
            ScenarioName::Storm => Scenario::Storm,
            ScenarioName::Idle => Scenario::Idle,
            ScenarioName::Mixed => Scenario::Mixed,
        };
        let fixed = |name: &str, given: Option<u32>, value: u32| match given {
            Some(given) if given != value => Err(anyhow!("--{name} cannot be chosen in {}", scenario.name())),
            _ => Ok(value),
        };
        let channels = match scenario {
            Scenario::OneToOne => fixed("channels", self.channels, self.clients)?,
            Scenario::ManyToMany => fixed("channels", self.channels, 1)?,
            _ => self.channels.unwrap_or(1),
        };
        let publishers = match scenario {
            Scenario::OneToOne => fixed("publishers", self.publishers, self.clients)?,
            Scenario::ManyToMany => self.publishers.unwrap_or(self.clients),
            _ => self.publishers.unwrap_or(channels),
        };
        if scenario == Scenario::ManyToMany && publishers > self.clients {
            bail!("--publishers cannot exceed --clients in many-to-many");
        }
        let transport = match (self.transport, scenario) {
            (Some(TransportName::Websocket), Scenario::Polling) => bail!("polling is by long-polling"),
            (Some(TransportName::LongPolling), _) | (None, Scenario::Polling) => Transport::LongPolling,
            (Some(TransportName::Websocket) | None, _) => Transport::Websocket,
        };
        if scenario == Scenario::Storm && self.until_back && transport == Transport::LongPolling {
            bail!("--until-back is by websocket");
        }
        let rate = match self.rate.as_deref() {
            None => Rate::PerSecond(100.0),
            Some("max") => Rate::Max,
            Some(text) => Rate::PerSecond(text.parse().context("--rate takes a number or `max`")?),
        };
        let in_flight = match (self.in_flight, scenario) {
            (Some(given), _) => given,
            (None, Scenario::Storm) => 100,
            (None, _) => (if publishers > 16 { 1 } else { 16 }).max(self.batch),
        };
        let until_back = self.until_back;
        let socket_io = targets.iter().any(|target| target.protocol == Protocol::SocketIo);
        if self.batch > 1 && socket_io {
            bail!("--batch is of Bayeux: in socket.io each message has a frame");
        }
        Ok(Load {
            scenario,
            clients: self.clients,
            publishers,
            channels,
            channel: self.channel.clone(),
            size: self.size,
            rate,
            in_flight,
            batch: self.batch,
            transport,
            duration: self.duration.unwrap_or(Duration::from_secs(if until_back { 60 } else { 10 })),
            warm_up: self.warm_up,
            drain: self.drain,
            churn: if scenario == Scenario::Mixed { self.churn } else { 0.0 },
            until_back,
            threads: self.threads,
            sources: self.sources.clone(),
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..1 << 53)),
        })
    }

    fn targets(&self) -> anyhow::Result<Vec<Target>> {
        if !self.targets.is_empty() {
            return self.targets.iter().enumerate().map(|(at, text)| target(at, text)).collect();
        }
        let default = [DEFAULT_URL.to_owned()];
        let urls = if self.urls.is_empty() { &default } else { self.urls.as_slice() };
        Ok(vec![Target {
            name: "server".to_owned(),
            endpoints: urls.iter().map(|url| Endpoint::resolve(url)).collect::<Result<_, _>>()?,
            pids: self.pids.clone(),
            redis_pids: self.redis_pids.clone(),
            protocol: match self.protocol {
                ProtocolName::Bayeux => Protocol::Bayeux,
                ProtocolName::SocketIo => Protocol::SocketIo,
            },
        }])
    }
}

/// Reads `name=faye url=... pid=1`.
fn target(at: usize, text: &str) -> anyhow::Result<Target> {
    let mut target = Target {
        name: format!("target-{}", at + 1),
        endpoints: Vec::new(),
        pids: Vec::new(),
        redis_pids: Vec::new(),
        protocol: Protocol::Bayeux,
    };
    for field in text.split_whitespace() {
        let (key, value) = field.split_once('=').with_context(|| format!("--target: `{field}` is not key=value"))?;
        let pid = || value.parse::<u32>().with_context(|| format!("--target: `{field}` is not a process"));
        match key {
            "name" => target.name = value.to_owned(),
            "url" => target.endpoints.push(Endpoint::resolve(value)?),
            "pid" => target.pids.push(pid()?),
            "redis-pid" => target.redis_pids.push(pid()?),
            "protocol" => {
                let protocol = ProtocolName::from_str(value, false);
                target.protocol = match protocol.map_err(|_| anyhow!("--target: protocol is bayeux or socket.io"))? {
                    ProtocolName::Bayeux => Protocol::Bayeux,
                    ProtocolName::SocketIo => Protocol::SocketIo,
                };
            }
            _ => bail!("--target: `{key}` is none of name, url, pid, redis-pid, protocol"),
        }
    }
    if target.endpoints.is_empty() {
        bail!("--target: `{text}` has no url");
    }
    Ok(target)
}

/// Addresses to come from, when there are too many connections for the ports of one and all targets are on loopback.
fn sources(targets: &[Target], connections: u32) -> Vec<IpAddr> {
    let mut endpoints = targets.iter().flat_map(|target| &target.endpoints);
    // All of `127.0.0.0/8` is loopback, and of IPv6 one address.
    if connections <= PER_SOURCE || !endpoints.all(Endpoint::is_ipv4_loopback) {
        return Vec::new();
    }
    let count = connections.div_ceil(PER_SOURCE).min(250) as u8;
    (2..2 + count).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    #[test]
    fn requests_under_way_need_ports_too() {
        for (under_way, sources) in [("1", 0), ("16", 2)] {
            let line = "bench polling --clients 1000 --channels 1000 --rate max --url http://127.0.0.1:1/ --in-flight";
            let line = Line::parse_from(line.split(' ').chain([under_way]));
            let plan = line.bench.plan(1 << 20).expect("a sound plan");
            assert_eq!(plan.load.sources.len(), sources, "{under_way}");
        }
    }
}
