//! What operators rely on: nodes that leave in order, readiness that is true, figures that are documented.

mod age;
mod drain;
mod figures;
mod readiness;

use std::time::Duration;

use weft::engine::memory::MemoryEngine;
use weft::{Config, Node};

/// A node on an engine that it shares with others.
async fn node_on(engine: &MemoryEngine, adjust: impl FnOnce(&mut Config)) -> Node {
    let free = "127.0.0.1:0".parse().expect("an address");
    let mut config = Config { listen: free, internal_listen: free, ..Config::default() };
    adjust(&mut config);
    let node = Node::builder(config).memory_engine(engine.clone()).start().await.expect("the node starts");
    crate::support::within(Duration::from_secs(10), "the node is ready", node.ready()).await;
    node
}
