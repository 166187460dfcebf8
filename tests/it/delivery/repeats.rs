//! Publishes that are sent again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::value::to_raw_value;

use super::*;
use crate::support::http::{Connection, json_request, sample};
use crate::support::node::{node, node_with_extension};
use crate::support::redis::Redis;

/// An extension that stamps what comes in: no two copies of a publish leave it alike.
#[derive(Default)]
struct Stamps(AtomicU64);

impl weft::Extension for Stamps {
    fn incoming<'a>(
        &'a self,
        message: &'a mut weft::Message,
        _request: &'a weft::RequestInfo,
    ) -> futures_util::future::BoxFuture<'a, weft::Verdict> {
        if message.data.is_some() {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            message.data = to_raw_value(&number).ok();
        }
        Box::pin(std::future::ready(weft::Verdict::Pass))
    }
}

fn publication(session: &Session, id: &str, data: u64) -> Value {
    json!({"channel": "/a", "clientId": session.id, "id": id, "data": data})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_resent_through_another_node_is_delivered_once() {
    let redis = Redis::start().await;
    let start = || node(|config| config.redis.url = redis.url());
    let (here, there) = tokio::join!(start(), start());
    let mut session = Session::connected(here.addr(), Value::Null).await;
    session.subscribed("/a").await;
    let message = publication(&session, "p1", 1);
    let (mut one, mut other) = (Poster::new(here.addr()), Poster::new(there.addr()));
    // The first is under way while the second is sent, and a third comes later.
    let (first, second) = tokio::join!(one.post(&message), other.post(&message));
    let third = other.post(&json!([message, publication(&session, "p2", 1)])).await;
    for reply in [&first[0], &second[0], &third[0], &third[1]] {
        assert_eq!(reply["successful"], true, "{reply}");
    }
    assert_eq!(session.poll(Value::Null).await.data(), [1, 1], "p1 and p2");
    let repeated = "weft_publishes_repeated_total";
    let sum = sample(here.internal_addr(), repeated).await + sample(there.internal_addr(), repeated).await;
    assert_eq!(sum, 2.0);
}

#[tokio::test]
async fn other_content_under_an_old_id_is_a_new_message() {
    let node = node(|_| ()).await;
    let mut session = Session::connected(node.addr(), Value::Null).await;
    session.subscribed("/a").await;
    let mut poster = Poster::new(node.addr());
    for data in [1, 2, 1, 3] {
        let reply = poster.post(&publication(&session, "always the same", data)).await.remove(0);
        assert_eq!(reply["successful"], true, "{reply}");
    }
    // Without id or session nobody can know.
    for message in [json!({"channel": "/a", "data": 4}), json!({"channel": "/a", "data": 4, "id": "1"})] {
        poster.post(&message).await;
        poster.post(&message).await;
    }
    assert_eq!(session.poll(Value::Null).await.data(), [1, 2, 3, 4, 4, 4, 4]);
}

#[tokio::test]
async fn a_key_of_the_publishers_own_counts_alone() {
    let node = node(|_| ()).await;
    let mut session = Session::connected(node.addr(), Value::Null).await;
    session.subscribed("/**").await;
    let mut poster = Poster::new(node.addr());
    let keyed =
        |channel: &str, key: &str, data: u64| json!({"channel": channel, "data": data, "ext": {"idempotencyKey": key}});
    for message in [keyed("/a", "x", 1), keyed("/a", "x", 2), keyed("/a", "y", 3), keyed("/b", "x", 4)] {
        let reply = poster.post(&message).await.remove(0);
        assert_eq!(reply["successful"], true, "{reply}");
    }
    assert_eq!(session.poll(Value::Null).await.data(), [1, 3, 4]);
}

#[tokio::test]
async fn what_extensions_add_makes_no_other_message() {
    let node = node_with_extension(Stamps::default(), |_| ()).await;
    let mut session = Session::connected(node.addr(), Value::Null).await;
    session.subscribed("/a").await;
    let mut poster = Poster::new(node.addr());
    for _ in 0..3 {
        poster.post(&publication(&session, "p", 9)).await;
    }
    assert_eq!(session.poll(Value::Null).await.data(), [0]);
}

/// A page that is loaded again starts its ids anew, and goes on with its session.
#[tokio::test]
async fn cometds_clients_may_use_their_ids_again() {
    let node = node(|_| ()).await;
    let mut session = Session::connected(node.addr(), Value::Null).await;
    session.subscribed("/a").await;
    let mut connection = Connection::open(node.addr()).await;
    for _ in 0..2 {
        let message = publication(&session, "2", 1).to_string();
        connection.send(&json_request("/cometd", message.as_bytes())).await;
        assert_eq!(connection.response().await.json()[0]["successful"], true);
    }
    assert_eq!(session.poll(Value::Null).await.data(), [1, 1]);
}

#[tokio::test]
async fn it_can_be_switched_off() {
    let node = node(|config| config.idempotency_window = Duration::ZERO).await;
    let mut session = Session::connected(node.addr(), Value::Null).await;
    session.subscribed("/a").await;
    let mut poster = Poster::new(node.addr());
    for _ in 0..2 {
        poster.post(&publication(&session, "p", 1)).await;
    }
    assert_eq!(session.poll(Value::Null).await.data(), [1, 1]);
}
