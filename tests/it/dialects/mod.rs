//! What the two dialects have in common and where they differ, on the wire (`docs/compatibility.md`).

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::http::{Connection, json_request};
use crate::support::node::{TestNode, node};
use crate::support::websocket::Socket;
use crate::support::{SOON, eventually, soon};

/// A session on one mount, and the connection that it uses.
struct Session {
    mount: &'static str,
    id: String,
    addr: SocketAddr,
}

const DIALECTS: [&str; 2] = ["/bayeux", "/cometd"];

async fn short_node() -> TestNode {
    node(|config| config.timeout = Duration::from_secs(30)).await
}

async fn post(addr: SocketAddr, path: &str, messages: Value) -> Vec<Value> {
    let mut connection = Connection::open(addr).await;
    connection.send(&json_request(path, messages.to_string().as_bytes())).await;
    let response = soon("an answer", connection.held_response()).await;
    assert_eq!(response.status, 200, "{}", response.text());
    response.json().as_array().expect("an array").clone()
}

impl Session {
    async fn new(addr: SocketAddr, mount: &'static str) -> Self {
        let message = json!({"channel": "/meta/handshake", "id": "h", "version": "1.0",
            "supportedConnectionTypes": ["long-polling", "websocket"]});
        let reply = post(addr, &format!("{mount}/handshake"), message).await.remove(0);
        Self { mount, id: reply["clientId"].as_str().expect("a session").to_owned(), addr }
    }

    async fn post(&self, messages: Value) -> Vec<Value> {
        post(self.addr, self.mount, messages).await
    }

    fn connect(&self, id: &str, advice: Value) -> Value {
        json!({"channel": "/meta/connect", "clientId": self.id, "connectionType": "long-polling", "id": id,
            "advice": advice})
    }

    async fn subscribe(&self, channel: &str) -> Value {
        let message = json!({"channel": "/meta/subscribe", "clientId": self.id, "subscription": channel, "id": "s"});
        self.post(message).await.remove(0)
    }

    async fn publish(&self, channel: &str, data: Value) -> Value {
        self.post(json!({"channel": channel, "clientId": self.id, "data": data, "id": "p"})).await.remove(0)
    }
}

fn data(replies: &[Value]) -> Vec<&Value> {
    replies.iter().filter(|reply| reply.get("successful").is_none()).map(|reply| &reply["data"]).collect()
}

/// Not held although nothing waits and 30 s are allowed: `soon` is a third of that.
#[tokio::test]
async fn first_connect_is_answered_at_once() {
    let node = short_node().await;
    for mount in DIALECTS {
        let session = Session::new(node.addr(), mount).await;
        let reply = session.post(session.connect("1", json!({}))).await.remove(0);
        let advice = json!({"reconnect": "retry", "interval": 0, "timeout": 30_000});
        assert_eq!((&reply["successful"], &reply["advice"]), (&json!(true), &advice), "{mount}");
    }
}

#[tokio::test]
async fn connects_beside_other_messages_are_not_held() {
    let node = short_node().await;
    for mount in DIALECTS {
        let session = Session::new(node.addr(), mount).await;
        session.post(session.connect("1", json!({}))).await;
        let subscribe = json!({"channel": "/meta/subscribe", "clientId": session.id, "subscription": "/a", "id": "s"});
        let replies = session.post(json!([session.connect("2", json!({})), subscribe])).await;
        assert_eq!(replies.len(), 2, "{mount}: {replies:?}");
    }
}

#[tokio::test]
async fn events_and_connect_reply_in_the_dialects_order() {
    let node = short_node().await;
    for (mount, event_at) in [("/bayeux", 1), ("/cometd", 0)] {
        let session = Session::new(node.addr(), mount).await;
        session.subscribe("/a").await;
        session.publish("/a", json!(1)).await;
        let replies = session.post(session.connect("1", json!({}))).await;
        assert_eq!(replies[event_at]["data"], 1, "{mount}: {replies:?}");
        assert!(replies[event_at].get("id").is_none(), "a delivered message has no id");
    }
}

#[tokio::test]
async fn unknown_sessions_are_told_in_the_dialects_words() {
    let node = short_node().await;
    for (mount, error, publish_succeeds) in
        [("/bayeux", "401:nobody:Unknown client", true), ("/cometd", "402::session_unknown", false)]
    {
        let nobody = Session { mount, id: "nobody".to_owned(), addr: node.addr() };
        let connect = nobody.post(nobody.connect("1", json!({}))).await.remove(0);
        assert_eq!((&connect["error"], &connect["advice"]["reconnect"]), (&json!(error), &json!("handshake")));
        assert_eq!(connect["advice"]["timeout"], 30_000, "advice is complete");
        if mount == "/cometd" {
            assert_eq!(connect["advice"]["interval"], 0, "aiocometd would sleep that many seconds");
        }
        assert_eq!(nobody.subscribe("/a").await["error"], error);
        let publish = nobody.publish("/a", json!(1)).await;
        assert_eq!(publish["successful"], publish_succeeds, "{publish}");
        assert!(publish.get("data").is_none(), "a publish reply carries no data");
    }
}

#[tokio::test]
async fn service_subscriptions_record_nothing_or_are_refused() {
    let node = short_node().await;
    for (mount, succeeds) in [("/bayeux", false), ("/cometd", true)] {
        let session = Session::new(node.addr(), mount).await;
        assert_eq!(session.subscribe("/service/echo").await["successful"], succeeds, "{mount}");
        assert_eq!(session.publish("/service/echo", json!(1)).await["successful"], true, "{mount}");
        let replies = session.post(session.connect("1", json!({"timeout": 0}))).await;
        assert!(data(&replies).is_empty(), "{mount}: {replies:?}");
    }
}

/// In CometD's dialect a lone connect with a zero time-out says that the last one failed; beside other messages it says
/// nothing of the kind, or every batch would deliver again. In Faye's it never does.
#[tokio::test]
async fn cometd_timeout0_in_batch_confirms() {
    let node = short_node().await;
    for (mount, alone, repeats) in [("/cometd", true, true), ("/cometd", false, false), ("/bayeux", true, false)] {
        let session = Session::new(node.addr(), mount).await;
        session.post(session.connect("1", json!({"timeout": 0}))).await;
        session.subscribe("/a").await;
        session.publish("/a", json!(1)).await;
        let replies = session.post(session.connect("2", json!({}))).await;
        assert_eq!(data(&replies), [&json!(1)]);
        let connect = session.connect("3", json!({"timeout": 0}));
        let messages =
            if alone { connect } else { json!([connect, {"channel": "/b", "clientId": session.id, "data": 2}]) };
        let again = data(&session.post(messages).await).len();
        assert_eq!(again, usize::from(repeats), "{mount}, alone: {alone}");
    }
}

#[tokio::test]
async fn disconnect_releases_the_held_connect() {
    let node = short_node().await;
    for mount in DIALECTS {
        let session = Session::new(node.addr(), mount).await;
        session.post(session.connect("1", json!({}))).await;
        let held = tokio::spawn(post(node.addr(), mount, session.connect("2", json!({}))));
        // The disconnect must find the poll held: this session's beside the node's own.
        let sessions = node.embedded().server().sessions();
        eventually(SOON, "the poll is held", async || (sessions.held() >= 2).then_some(())).await;
        let disconnect = json!({"channel": "/meta/disconnect", "clientId": session.id, "id": "d"});
        let reply = session.post(disconnect).await.remove(0);
        assert_eq!(reply["successful"], true);
        let released = soon("the held connect is released", held).await.expect("no panic").remove(0);
        assert_eq!(released["advice"]["reconnect"], "none", "{mount}: {released}");
        assert_eq!(released["successful"], true, "{mount}: {released}");
    }
}

/// A socket without a session adopts the session of its first connect, made over HTTP or not.
#[tokio::test]
async fn sessions_move_between_transports_by_their_id_alone() {
    let node = short_node().await;
    let session = Session::new(node.addr(), "/cometd").await;
    session.subscribe("/a").await;
    let mut socket = Socket::open(node.addr()).await;
    socket
        .send(&json!([{"channel": "/meta/connect", "clientId": session.id, "connectionType": "websocket", "id": "1"}]))
        .await;
    let replies = soon("the first connect is answered", socket.next()).await.expect("open");
    assert_eq!(replies[0]["successful"], true);
    session.publish("/a", json!(1)).await;
    let pushed = soon("a push", socket.next()).await.expect("open");
    assert_eq!(pushed[0]["data"], 1);
}
