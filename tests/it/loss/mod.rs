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
use crate::support::node::{TestNode, node};
use crate::support::within;

/// The channel of the probes.
const CHANNEL: &str = "/loss/probe";

/// A node whose polls are held so shortly that a probe which lost something ends soon and can say what.
async fn probe_node() -> TestNode {
    node(|config| config.timeout = Duration::from_secs(2)).await
}

/// Publishes the numbers below `count`, one after the other, each acknowledged before the next.
fn publish_numbers(addr: SocketAddr, count: u64, spacing: Option<Duration>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut poster = Poster::new(addr);
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
