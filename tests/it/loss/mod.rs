//! Loss probes: numbered messages, each publish acknowledged, and connections that break at the worst moment. Nothing
//! may be missing and the order must hold; a message may come twice only where a connection was cut.

mod handover;
mod polling;
mod sockets;
mod streams;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::support::bayeux::{Poster, publish};
use crate::support::http::sample;
use crate::support::node::{Process, TestNode, node};
use crate::support::nodes::Nodes;
use crate::support::redis::Redis;
use crate::support::within;

/// The channel of the probes.
const CHANNEL: &str = "/loss/probe";

/// Where a probe runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One node with the memory engine.
    OneNode,
    /// Three processes on one Redis; each request and socket takes one of them at random.
    ThreeNodes,
}

/// The nodes of a probe. Polls are held so shortly that a probe which lost something ends soon and can say what.
struct ProbeNodes {
    nodes: Nodes,
    /// Where they show their metrics.
    internal: Vec<SocketAddr>,
    /// Held for their drop, which stops them.
    _here: Option<TestNode>,
    _processes: Vec<Process>,
    _redis: Option<Redis>,
}

impl Place {
    async fn start(self) -> ProbeNodes {
        self.start_holding(Duration::from_secs(2)).await
    }

    async fn start_holding(self, timeout: Duration) -> ProbeNodes {
        if self == Self::OneNode {
            let node = node(|config| config.timeout = timeout).await;
            let (nodes, internal) = (node.addr().into(), vec![node.internal_addr()]);
            return ProbeNodes { nodes, internal, _here: Some(node), _processes: vec![], _redis: None };
        }
        let redis = Redis::start().await;
        let (url, timeout) = (redis.url(), format!("{}s", timeout.as_secs()));
        let arguments = ["--redis-url", &url, "--timeout", &timeout, "--log-level", "warn"];
        let start = || Process::start(&arguments);
        let (one, two, three) = tokio::join!(start(), start(), start());
        let processes = vec![one, two, three];
        let nodes = processes.iter().map(Process::addr).collect();
        let internal = processes.iter().map(Process::internal_addr).collect();
        ProbeNodes { nodes, internal, _here: None, _processes: processes, _redis: Some(redis) }
    }
}

impl ProbeNodes {
    fn addr(&self) -> Nodes {
        self.nodes.clone()
    }

    /// How many connections of clients the nodes know of.
    async fn connections(&self) -> f64 {
        let mut sum = 0.0;
        for internal in &self.internal {
            sum += sample(*internal, "weft_connections").await;
        }
        sum
    }
}

macro_rules! probes {
    ($($module:ident :: $probe:ident),* $(,)?) => {
        mod one_node {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $probe() {
                    $module::$probe(Place::OneNode).await;
                }
            )*
        }

        mod three_nodes {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $probe() {
                    $module::$probe(Place::ThreeNodes).await;
                }
            )*
        }
    };
}

probes!(
    polling::burst,
    polling::one_millisecond_apart,
    polling::three_milliseconds_apart,
    polling::one_copy_with_overlapping_patterns,
    polling::batches_keep_their_order,
    polling::poll_ended_and_retried,
    polling::poll_reset_and_retried,
    polling::poll_ended_and_followed_by_another,
    polling::poll_reset_and_followed_by_another,
    polling::overlapping_polls,
    polling::connect_and_subscribe_in_one_batch,
    polling::reply_ended_unread,
    polling::reply_reset_unread,
    sockets::socket_cut_under_load,
    sockets::transport_changed_under_load,
    sockets::socket_reads_by_fits_and_starts,
    sockets::publishes_before_a_close_are_stored,
    streams::stream_ended,
    streams::stream_reset,
);

/// Publishes the numbers below `count`, one after the other, each acknowledged before the next.
fn publish_numbers(nodes: Nodes, count: u64, spacing: Option<Duration>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut poster = Poster::new(nodes);
        let mut pace = spacing.map(interval);
        if let Some(pace) = &mut pace {
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        for number in 0..count {
            if let Some(pace) = &mut pace {
                pace.tick().await;
            }
            publish(&mut poster, CHANNEL, json!(number)).await;
        }
    })
}

/// The numbers that a session has received, in the order of arrival.
#[derive(Debug, Default)]
struct Tally {
    received: Vec<u64>,
    /// Counted as they come: looking through all of them at each message would make the probe the slow part.
    distinct: HashSet<u64>,
}

impl Tally {
    /// Counts delivered messages; others are ignored.
    fn add(&mut self, messages: &[Value]) {
        let deliveries = messages.iter().filter(|message| message["channel"] == CHANNEL);
        for number in deliveries.map(|message| message["data"].as_u64().expect("a number")) {
            self.received.push(number);
            self.distinct.insert(number);
        }
    }

    /// How many different numbers have come.
    fn distinct(&self) -> usize {
        self.distinct.len()
    }

    /// Receives with `next` until all numbers below `count` have come, or the publisher has ended and `next` brings
    /// nothing more.
    async fn fill(&mut self, count: u64, publisher: JoinHandle<()>, mut next: impl AsyncFnMut(&mut Self) -> bool) {
        let receiving = async {
            while self.distinct() < count as usize {
                let was_published = publisher.is_finished();
                if !next(self).await && was_published {
                    break;
                }
            }
        };
        within(Duration::from_secs(120), "the probe ends", receiving).await;
        publisher.await.expect("every publish is acknowledged");
    }

    /// Panics unless each number below `count` came once, in order.
    fn assert_exact(&self, count: u64) {
        assert_eq!(self.assert_complete(count), 0, "messages that came twice: {:?}", self.received);
    }

    /// Panics unless each number below `count` came, for the first time in order. Returns how many came again.
    fn assert_complete(&self, count: u64) -> usize {
        let mut seen = HashSet::new();
        let first: Vec<u64> = self.received.iter().copied().filter(|number| seen.insert(*number)).collect();
        let lost: Vec<u64> = (0..count).filter(|number| !seen.contains(number)).collect();
        assert!(lost.is_empty(), "{} of {count} acknowledged messages are lost: {lost:?}", lost.len());
        assert!(first.is_sorted(), "out of order: {first:?}");
        self.received.len() - first.len()
    }
}
