//! How many there may be: sessions, subscriptions, connections.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::Bounded;
use crate::support::bayeux::{Client, Poster};
use crate::support::http::{Connection, get, request, sample};
use crate::support::{eventually, soon};

async fn handshake(addr: SocketAddr) -> Value {
    let message = json!({"channel": "/meta/handshake", "version": "1.0", "id": "h",
        "supportedConnectionTypes": ["long-polling"]});
    soon("a handshake reply", Poster::new(addr).post(&message)).await.remove(0)
}

#[tokio::test]
async fn sessions() {
    let bounded = Bounded::start(|config| config.limits.sessions = 3).await;
    // The node's own session is one of the three.
    soon("the node is ready", bounded.node.embedded().ready()).await;
    let before = bounded.reached("sessions").await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(Client::connected(bounded.addr()).await);
    }
    let refused = handshake(bounded.addr()).await;
    assert_eq!(refused["successful"], false, "{refused}");
    assert_eq!(refused["error"], "503::Too many sessions: the limit is 3");
    assert_eq!(refused["clientId"], Value::Null);
    assert_eq!(refused["advice"]["reconnect"], "handshake", "{refused}");
    assert!(refused["advice"]["interval"].as_u64().is_some_and(|interval| interval <= 5000), "{refused}");
    assert_eq!(refused["advice"]["timeout"], 45_000);
    bounded.reaches("sessions", before, 1).await;

    clients.pop().expect("two clients").disconnect().await;
    bounded.serves_on("too many sessions").await;
    clients[0].subscribe("/still/here").await;
}

#[tokio::test]
async fn sessions_that_ended_by_themselves_make_room() {
    let bounded = Bounded::start(|config| {
        config.limits.sessions = 2;
        config.timeout = Duration::from_millis(500);
    })
    .await;
    soon("the node is ready", bounded.node.embedded().ready()).await;
    soon("all places are taken", async { while handshake(bounded.addr()).await["successful"] == true {} }).await;
    eventually(Duration::from_secs(10), "room for a session", || async {
        Some(handshake(bounded.addr()).await).filter(|reply| reply["successful"] == true)
    })
    .await;
    bounded.counts("weft_sessions_expired_total", 1.0).await;
}

#[tokio::test]
async fn subscriptions_of_a_session() {
    let bounded = Bounded::start(|config| config.limits.subscriptions = 2).await;
    let before = bounded.reached("subscriptions").await;
    let mut client = Client::connected(bounded.addr()).await;
    client.subscribe("/a").await;
    // A list that cannot fit is refused as a whole, others are applied in order up to the one that is too many.
    for (list, error) in [
        (json!(["/c", "/d", "/e"]), "403::Too many subscriptions: the limit is 2"),
        (json!(["/b/*", "/c"]), "403:/c:Too many subscriptions: the limit is 2"),
    ] {
        let message = json!({"channel": "/meta/subscribe", "clientId": client.id, "subscription": list});
        let refused = soon("a reply", client.poster.post(&message)).await.remove(0);
        assert_eq!(refused["successful"], false, "{refused}");
        assert_eq!(refused["error"], error);
    }
    bounded.reaches("subscriptions", before, 2).await;

    client.subscribe("/a").await;
    let unsubscribe = json!({"channel": "/meta/unsubscribe", "clientId": client.id, "subscription": "/b/*"});
    assert_eq!(soon("a reply", client.poster.post(&unsubscribe)).await[0]["successful"], true);
    client.subscribe("/c").await;
    let mut other = Client::connected(bounded.addr()).await;
    other.subscribe("/d").await;
    bounded.serves_on("too many subscriptions").await;
}

#[tokio::test]
async fn connections() {
    let bounded = Bounded::start(|config| config.limits.connections = 2).await;
    let before = bounded.reached("connections").await;
    let mut admitted = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(bounded.addr()).await;
        connection.send(&request("GET", "/healthz", &[], None)).await;
        assert_eq!(connection.response().await.status, 200);
        admitted.push(connection);
    }
    let refused = get(bounded.addr(), "/healthz", &[]).await;
    assert_eq!((refused.status.as_u16(), &*refused.text()), (503, "Too many connections"));
    assert_eq!(refused.headers["retry-after"], "5");
    assert!(refused.closes(), "{:?}", refused.headers);
    bounded.reaches("connections", before, 1).await;
    let ready = get(bounded.node.internal_addr(), "/healthz", &[]).await;
    assert_eq!(ready.status, 200, "the internal listener counts apart");

    admitted[0].send(&request("GET", "/healthz", &[], None)).await;
    assert_eq!(admitted[0].response().await.status, 200, "who is in stays in");
    drop(admitted);
    eventually(Duration::from_secs(10), "the node knows that they are gone", || async {
        (sample(bounded.node.internal_addr(), "weft_connections").await == 0.0).then_some(())
    })
    .await;
    bounded.serves_on("too many connections").await;
}
