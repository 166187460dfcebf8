//! The Redis engine beyond the contract that all engines share: its scripts, its keys, and a Redis that fails in every way
//! it can.

mod address;
mod lost_writes;
mod outage;
mod publishing;
mod steps;
mod upkeep;

use std::time::Duration;

use weft::bayeux::Pattern;
use weft::engine::redis::RedisNode;
use weft::engine::*;

use crate::contract::{MANY, publish, session};
use crate::support::redis::Redis;

fn pattern(name: &str) -> Pattern {
    Pattern::parse(name).expect(name)
}

/// What the logs hold for a session, as numbers.
async fn unread(node: &RedisNode, session: &SessionId, id: &str) -> Vec<u64> {
    let attached = crate::contract::attach_poll(node, session, id).await;
    let snapshot = crate::contract::snapshot(node, session, &attached).await;
    let number = |delivery: &std::sync::Arc<Delivery>| {
        let message = weft::Message::from_delivery(delivery.json()).expect("our own JSON");
        message.data.expect("data").get().parse().expect("a number")
    };
    snapshot.deliveries.iter().map(number).collect()
}

/// How often this command was called since the statistics were reset, by scripts too.
async fn calls_of(redis: &Redis, command: &str) -> u64 {
    let stats: String = redis.ask(&["INFO", "commandstats"]).await;
    let prefix = format!("cmdstat_{command}:calls=");
    let calls = stats.lines().find_map(|line| line.strip_prefix(&prefix)).expect("it was called");
    calls.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number")
}
