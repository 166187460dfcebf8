//! Every bound of a node, set small: at each, the peer is told clearly, a counter rises, and the node serves on.

mod memory;
mod patience;
mod places;
mod requests;

use std::time::Duration;

use crate::support::bayeux::round;
use crate::support::eventually;
use crate::support::http::sample;
use crate::support::node::{TestNode, node};

/// A node with small bounds, which has seen nobody.
struct Bounded {
    node: TestNode,
}

impl Bounded {
    async fn start(adjust: impl FnOnce(&mut weft::Config)) -> Self {
        Self { node: node(adjust).await }
    }

    fn addr(&self) -> std::net::SocketAddr {
        self.node.addr()
    }

    /// How often a bound was reached so far.
    async fn reached(&self, limit: &str) -> f64 {
        sample(self.node.internal_addr(), &format!("weft_limit_reached_total{{limit=\"{limit}\"}}")).await
    }

    /// Waits until a bound was reached `times` since `before`.
    async fn reaches(&self, limit: &str, before: f64, times: u32) {
        self.counts(&format!("weft_limit_reached_total{{limit=\"{limit}\"}}"), before + f64::from(times)).await;
    }

    /// Waits until a sample is at least `value`.
    async fn counts(&self, name: &str, value: f64) {
        eventually(Duration::from_secs(10), &format!("{name} reaches {value}"), || async {
            (sample(self.node.internal_addr(), name).await >= value).then_some(())
        })
        .await;
    }

    /// Panics unless a fresh session gets its messages.
    async fn serves_on(&self, after: &str) {
        round(self.addr(), after).await;
    }
}
