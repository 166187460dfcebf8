//! Acknowledgements, resume, replay, repeated publishes and services, as clients see them on the wire
//! (`docs/delivery.md`).

mod acks;
mod activity;
mod repeats;
mod replay;
mod resume;
mod services;
mod timing;

use serde_json::{Value, json};

use crate::support::bayeux::{Poll, Poster};
use crate::support::nodes::Nodes;
use crate::support::soon;
use crate::support::websocket::Socket;

/// A session with `ext` in its handshake.
struct Session {
    id: String,
    /// `ext` of the handshake's reply.
    granted: Value,
    poster: Poster,
    last_id: u64,
}

impl Session {
    async fn new(nodes: impl Into<Nodes>, ext: Value) -> Self {
        let mut poster = Poster::new(nodes);
        let message = json!({"channel": "/meta/handshake", "version": "1.0", "id": "h", "ext": ext,
            "supportedConnectionTypes": ["long-polling", "websocket"]});
        let reply = soon("the handshake", poster.post(&message)).await.remove(0);
        assert_eq!(reply["successful"], true, "{reply}");
        let id = reply["clientId"].as_str().expect("a session").to_owned();
        Self { id, granted: reply["ext"].clone(), poster, last_id: 0 }
    }

    /// As [`Session::new`], after the first connect, which is answered at once.
    async fn connected(nodes: impl Into<Nodes>, ext: Value) -> Self {
        let mut session = Self::new(nodes, ext).await;
        session.poll(json!({})).await;
        session
    }

    fn next_id(&mut self) -> String {
        self.last_id += 1;
        self.last_id.to_string()
    }

    fn connect_message(&mut self, ext: Value, hold: bool) -> Value {
        let mut message = json!({"channel": "/meta/connect", "clientId": self.id, "connectionType": "long-polling",
            "id": self.next_id(), "ext": ext});
        if !hold {
            message["advice"] = json!({"timeout": 0});
        }
        message
    }

    /// Polls under a new id, without being held.
    async fn poll(&mut self, ext: Value) -> Poll {
        let message = self.connect_message(ext, false);
        Poll::from_replies(soon("the poll is answered", self.poster.post(&message)).await).accepted()
    }

    /// The reply to a subscribe.
    async fn subscribe(&mut self, channel: &str, ext: Value) -> Value {
        let message = json!({"channel": "/meta/subscribe", "clientId": self.id, "subscription": channel, "id": "s",
            "ext": ext});
        soon("a subscribe reply", self.poster.post(&message)).await.remove(0)
    }

    async fn subscribed(&mut self, channel: &str) {
        let reply = self.subscribe(channel, Value::Null).await;
        assert_eq!(reply["successful"], true, "{reply}");
    }
}

/// The messages of frames until one has the reply to a connect; gives both.
async fn until_reply(socket: &mut Socket) -> (Vec<Value>, Value) {
    let mut messages = Vec::new();
    loop {
        for message in soon("a frame", socket.next()).await.expect("the socket is open") {
            if message["channel"] == "/meta/connect" {
                return (messages, message);
            }
            messages.push(message);
        }
    }
}

fn data(messages: &[Value]) -> Vec<Value> {
    messages.iter().map(|message| message["data"].clone()).collect()
}
