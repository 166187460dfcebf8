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
