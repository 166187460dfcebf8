//! What happened between the recorded pairs: sessions made, messages published, a poll held. The capture left it out;
//! the pairs make no sense without it.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::compare::Sessions;
use super::pairs::{Body, Pair};
use crate::support::bayeux::{MOUNT, Poster};
use crate::support::http::{Connection, json_request};
use crate::support::nothing_within;

/// Does what must happen before this pair.
pub async fn before(pair: &Pair, addr: SocketAddr, sessions: &mut Sessions) {
    if pair.name.starts_with("deliver/wild_") && pair.name.ends_with("-subscribe") {
        // Each pattern was tried on a session that had no other.
        connected(addr, MOUNT, "bob", sessions).await;
    }
    for name in ["cid", "alice", "bob"] {
        if mentions(pair, name) && !sessions.knows(name) && pair.name != "ws/session" {
            connected(addr, &pair.path, name, sessions).await;
        }
    }
    for message in published_before(&pair.name) {
        let replies = Poster::new(addr).post(&message).await;
        assert_eq!(replies[0]["successful"], true, "{replies:?}");
    }
}

/// Names a session that has had its first connect, which is special. Server B has another mount.
async fn connected(addr: SocketAddr, mount: &str, name: &str, sessions: &mut Sessions) {
    let mut connection = Connection::open(addr).await;
    let handshake = json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["websocket"]});
    connection.send(&json_request(mount, handshake.to_string().as_bytes())).await;
    let reply = connection.response().await.json();
    let id = reply[0]["clientId"].as_str().unwrap_or_else(|| panic!("no session: {reply}"));
    let connect = json!({"channel": "/meta/connect", "clientId": id, "connectionType": "long-polling",
        "id": "first", "advice": {"timeout": 0}});
    connection.send(&json_request(mount, connect.to_string().as_bytes())).await;
    assert_eq!(connection.response().await.json()[0]["successful"], true, "the first connect");
    sessions.bind(name, id);
}

fn mentions(pair: &Pair, name: &str) -> bool {
    let name = format!("{{{{{name}}}}}");
    let in_body = matches!(&pair.body, Some(Body::Text(text)) if text.contains(&name));
    in_body || pair.frames.iter().any(|frame| frame.data.as_ref().is_some_and(|data| data.contains(&name)))
}

/// The messages that were published before this pair, with the ids that Faye delivers.
fn published_before(name: &str) -> Vec<Value> {
    let named = |channels: &[&str]| {
        let message = |channel: &&str| json!({"channel": channel, "data": channel, "id": channel.replace('/', "_")});
        channels.iter().map(message).collect()
    };
    match name {
        "deliver/three-in-order" => {
            (0..3).map(|n| json!({"channel": "/chat/room", "data": n, "id": format!("q{n}")})).collect()
        }
        "deliver/wild_w_*-received" => named(&["/w/a", "/w", "/w/a/b"]),
        "deliver/wild_w_**-received" => named(&["/w/a", "/w/a/b", "/w"]),
        "deliver/wild_*-received" => named(&["/w", "/w/a"]),
        _ => Vec::new(),
    }
}

/// Sends the poll of a later pair now, and makes sure that it is held.
pub async fn hold(addr: SocketAddr, request: &[u8]) -> Connection {
    let mut connection = Connection::open(addr).await;
    connection.send(request).await;
    nothing_within(std::time::Duration::from_millis(300), "the poll is held", connection.answer_begins()).await;
    connection
}
