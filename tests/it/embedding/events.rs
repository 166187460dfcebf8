//! What an embedding program is told of.

use std::time::Duration;

use serde_json::json;
use tokio::sync::broadcast::Receiver;
use weft::ServerEvent;

use crate::support::bayeux::{Client, Poster, publish};
use crate::support::node::{TestNode, node};
use crate::support::soon;

/// The events of a node, as texts, without those of other sessions.
struct Listener(Receiver<ServerEvent>);

impl Listener {
    fn new(node: &TestNode) -> Self {
        Self(node.embedded().events())
    }

    /// The next event of a session: what and where.
    async fn next(&mut self, of: &str) -> String {
        soon(&format!("an event of {of}"), async {
            loop {
                let event = self.0.recv().await.expect("the node runs");
                let (session, text) = described(event);
                if session == of {
                    return text;
                }
            }
        })
        .await
    }

    /// The next events of a session, until it ends.
    async fn until_the_end(&mut self, of: &str) -> Vec<String> {
        let mut events = Vec::new();
        while events.last().is_none_or(|event| event != "disconnect") {
            events.push(self.next(of).await);
        }
        events
    }
}

/// Whose event it is, and what happened.
fn described(event: ServerEvent) -> (String, String) {
    let (session, text) = match event {
        ServerEvent::Handshake { session } => (Some(session), "handshake".to_owned()),
        ServerEvent::Subscribe { session, channel } => (Some(session), format!("subscribe {channel}")),
        ServerEvent::Unsubscribe { session, channel } => (Some(session), format!("unsubscribe {channel}")),
        ServerEvent::Publish { session, channel, data } => {
            (session, format!("publish {} {}", channel.as_str(), String::from_utf8_lossy(&data)))
        }
        ServerEvent::Disconnect { session } => (Some(session), "disconnect".to_owned()),
        other => panic!("an unknown event: {other:?}"),
    };
    (session.map_or_else(|| "nobody".to_owned(), |session| session.as_str().to_owned()), text)
}

#[tokio::test]
async fn the_life_of_a_session() {
    let node = node(|_| ()).await;
    let mut listener = Listener::new(&node);
    let mut client = Client::connected(node.addr()).await;
    for pattern in ["/a", "/b/*", "/a"] {
        client.subscribe(pattern).await;
    }
    let message =
        |channel: &str, subscription| json!({"channel": channel, "clientId": client.id, "subscription": subscription});
    let unsubscribe = message("/meta/unsubscribe", json!(["/a", "/a", "/never"]));
    let forbidden = message("/meta/subscribe", json!(["/c", "/meta/x", "/d"]));
    let publish = json!({"channel": "/b/c", "clientId": client.id, "data": {"n": 1}});
    let refused = json!({"channel": "/b/*", "clientId": client.id, "data": 1});
    for (message, successful) in [(unsubscribe, true), (forbidden, false), (publish, true), (refused, false)] {
        let reply = soon("a reply", client.poster.post(&message)).await;
        assert_eq!(reply[0]["successful"], successful, "{reply:?}");
    }
    client.disconnect().await;

    let events = listener.until_the_end(&client.id).await;
    let (life, mut end) = (&events[..6], events[6..].to_vec());
    assert_eq!(
        life,
        ["handshake", "subscribe /a", "subscribe /b/*", "unsubscribe /a", "subscribe /c", r#"publish /b/c {"n":1}"#]
    );
    end.sort();
    assert_eq!(end, ["disconnect", "unsubscribe /b/*", "unsubscribe /c"], "{events:?}");
    assert_eq!(events.last().map(String::as_str), Some("disconnect"));
}

#[tokio::test]
async fn publishers_without_a_session() {
    let node = node(|_| ()).await;
    let mut listener = Listener::new(&node);
    publish(&mut Poster::new(node.addr()), "/a", json!("x")).await;
    assert_eq!(listener.next("nobody").await, r#"publish /a "x""#);
}

#[tokio::test]
async fn refused_handshakes_are_no_events() {
    let node = node(|_| ()).await;
    let mut listener = Listener::new(&node);
    let mut poster = Poster::new(node.addr());
    let reply = soon("a reply", poster.post(&json!({"channel": "/meta/handshake"}))).await;
    assert_eq!(reply[0]["successful"], false);
    let client = Client::handshake(node.addr()).await;
    loop {
        let (session, text) = described(soon("an event", listener.0.recv()).await.expect("the node runs"));
        // The node's own session comes first, if at all.
        if session == client.id {
            break;
        }
        assert!(!session.is_empty() && session != "nobody", "{session} {text}");
    }
}

#[tokio::test]
async fn the_end_of_a_session_that_is_not_heard_of() {
    let node = node(|config| config.timeout = Duration::from_millis(100)).await;
    let mut listener = Listener::new(&node);
    let mut client = Client::handshake(node.addr()).await;
    client.subscribe("/a").await;
    let events = listener.until_the_end(&client.id).await;
    assert_eq!(events, ["handshake", "subscribe /a", "unsubscribe /a", "disconnect"]);
}

#[tokio::test]
async fn the_end_of_a_session_whose_log_was_too_short() {
    let node = node(|config| config.limits.log_entries = 2).await;
    let mut listener = Listener::new(&node);
    let mut client = Client::connected(node.addr()).await;
    client.subscribe("/a").await;
    let mut poster = Poster::new(node.addr());
    for number in 0..5 {
        publish(&mut poster, "/a", json!(number)).await;
    }
    let poll = client.connect("late", None).await;
    assert_eq!(poll.reply["successful"], false, "{}", poll.reply);
    let events = listener.until_the_end(&client.id).await;
    assert_eq!(events, ["handshake", "subscribe /a", "unsubscribe /a", "disconnect"]);
}

#[tokio::test]
async fn the_life_of_a_client_inside() {
    let node = node(|_| ()).await;
    let mut listener = Listener::new(&node);
    let client = node.embedded().client().await.expect("a client");
    let session = client.session().as_str().to_owned();
    let first = client.subscribe("/a").await.expect("subscribed");
    let second = client.subscribe("/a").await.expect("subscribed");
    client.publish("/a", &1).await.expect("published");
    first.cancel().await.expect("cancelled");
    second.cancel().await.expect("cancelled");
    let _left = client.subscribe("/b").await.expect("subscribed");
    drop(client);
    let events = listener.until_the_end(&session).await;
    let life = ["handshake", "subscribe /a", "publish /a 1", "unsubscribe /a", "subscribe /b"];
    assert_eq!(events, [&life[..], &["unsubscribe /b", "disconnect"]].concat());
}
