//! A Bayeux client over long-polling that does what a test says and nothing by itself.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::http::{Connection, json_request};
use super::nodes::Nodes;
use super::soon;

/// Where the Faye dialect lives on a node with default mounts.
pub const MOUNT: &str = "/bayeux";

/// Posts batches, each to a node of its own choice; keeps one connection to each, and opens another when the node has
/// closed it.
#[derive(Debug)]
pub struct Poster {
    nodes: Nodes,
    connections: HashMap<SocketAddr, Connection>,
    /// Where the last request went.
    current: SocketAddr,
}

impl Poster {
    /// Connects when first used.
    pub fn new(nodes: impl Into<Nodes>) -> Self {
        let nodes = nodes.into();
        Self { current: nodes.pick(), connections: HashMap::new(), nodes }
    }

    /// Posts one message or a batch and returns the array of replies.
    pub async fn post(&mut self, messages: &Value) -> Vec<Value> {
        self.begin(messages).await;
        self.finish().await
    }

    /// Sends a batch and does not wait for the answer.
    pub async fn begin(&mut self, messages: &Value) {
        self.current = self.nodes.pick();
        if !self.connections.contains_key(&self.current) {
            self.connections.insert(self.current, Connection::open(self.current).await);
        }
        let connection = self.connections.get_mut(&self.current).expect("just opened");
        connection.send(&json_request(MOUNT, messages.to_string().as_bytes())).await;
    }

    /// Reads the answer to what [`Poster::begin`] sent, however long it is held.
    pub async fn finish(&mut self) -> Vec<Value> {
        let connection = self.connections.get_mut(&self.current).expect("a request is under way");
        let response = connection.held_response().await;
        assert_eq!(response.status, 200, "{}", response.text());
        if response.closes() {
            self.connections.remove(&self.current);
        }
        match response.json() {
            Value::Array(replies) => replies,
            other => panic!("a reply must be an array: {other}"),
        }
    }

    /// Gives up the connection, for instance to cut it.
    pub fn take(&mut self) -> Connection {
        self.connections.remove(&self.current).expect("a request is under way")
    }
}

/// What a connect brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Poll {
    /// The reply to the connect itself.
    pub reply: Value,
    /// The delivered messages, in order.
    pub messages: Vec<Value>,
}

impl Poll {
    /// Separates the connect reply from the deliveries of one answer. Replies to other messages are not expected.
    pub fn from_replies(replies: Vec<Value>) -> Self {
        let (mut connects, messages): (Vec<_>, Vec<_>) =
            replies.into_iter().partition(|reply| reply["channel"] == "/meta/connect");
        assert_eq!(connects.len(), 1, "one connect reply: {connects:?} {messages:?}");
        Self { reply: connects.remove(0), messages }
    }

    /// The `data` of the delivered messages.
    pub fn data(&self) -> Vec<Value> {
        self.messages.iter().map(|message| message["data"].clone()).collect()
    }

    /// Panics unless the connect succeeded.
    pub fn accepted(self) -> Self {
        assert_eq!(self.reply["successful"], true, "the connect is accepted: {}", self.reply);
        self
    }
}

/// A session, and a connection for everything but held polls.
#[derive(Debug)]
pub struct Client {
    /// The session.
    pub id: String,
    /// The connection for everything but held polls.
    pub poster: Poster,
    nodes: Nodes,
    last_message_id: u64,
}

impl Client {
    /// Makes a new session.
    pub async fn handshake(nodes: impl Into<Nodes>) -> Self {
        let nodes = nodes.into();
        let mut poster = Poster::new(nodes.clone());
        let message = json!({"channel": "/meta/handshake", "version": "1.0", "id": "1",
            "supportedConnectionTypes": ["long-polling", "websocket", "eventsource"]});
        let reply = soon("the handshake", poster.post(&message)).await.remove(0);
        assert_eq!(reply["successful"], true, "{reply}");
        let id = reply["clientId"].as_str().expect("a session id").to_owned();
        Self { id, poster, nodes, last_message_id: 1 }
    }

    /// A new session that has had its first connect, which is special: it is answered at once.
    pub async fn connected(nodes: impl Into<Nodes>) -> Self {
        let mut client = Self::handshake(nodes).await;
        client.poll_at_once().await;
        client
    }

    /// The next message id, as Faye's client counts.
    pub fn next_message_id(&mut self) -> String {
        self.last_message_id += 1;
        format!("m{}", self.last_message_id)
    }

    /// A connect message of this session.
    pub fn connect_message(&self, message_id: &str, kind: &str) -> Value {
        json!({"channel": "/meta/connect", "clientId": self.id, "connectionType": kind, "id": message_id})
    }

    /// Subscribes; panics unless accepted.
    pub async fn subscribe(&mut self, pattern: &str) {
        let message = self.subscribe_message(pattern);
        let reply = soon("a subscribe reply", self.poster.post(&message)).await.remove(0);
        assert_eq!(reply["successful"], true, "{reply}");
    }

    /// A subscribe message of this session.
    pub fn subscribe_message(&mut self, pattern: &str) -> Value {
        let id = self.next_message_id();
        json!({"channel": "/meta/subscribe", "clientId": self.id, "subscription": pattern, "id": id})
    }

    /// Polls with this message id and advice, and waits until the poll is answered.
    pub async fn connect(&mut self, message_id: &str, advice: Option<Value>) -> Poll {
        let mut message = self.connect_message(message_id, "long-polling");
        if let Some(advice) = advice {
            message["advice"] = advice;
        }
        Poll::from_replies(soon("the poll is answered", self.poster.post(&message)).await)
    }

    /// Polls with a new message id; panics unless accepted.
    pub async fn poll(&mut self) -> Poll {
        let message_id = self.next_message_id();
        self.connect(&message_id, None).await.accepted()
    }

    /// As [`Client::poll`], but never held.
    pub async fn poll_at_once(&mut self) -> Poll {
        let message_id = self.next_message_id();
        self.connect(&message_id, Some(json!({"timeout": 0}))).await.accepted()
    }

    /// Starts a poll on a connection of its own and does not wait for it.
    pub async fn begin_poll(&self, message_id: &str) -> Poster {
        let mut poster = Poster::new(self.nodes.clone());
        poster.begin(&self.connect_message(message_id, "long-polling")).await;
        poster
    }

    /// Ends the session; panics unless accepted.
    pub async fn disconnect(&mut self) {
        let message = json!({"channel": "/meta/disconnect", "clientId": self.id, "id": self.next_message_id()});
        let reply = soon("the disconnect reply", self.poster.post(&message)).await.remove(0);
        assert_eq!(reply["successful"], true, "{reply}");
    }
}

/// Publishes and waits for the acknowledgement; panics unless accepted.
pub async fn publish(poster: &mut Poster, channel: &str, data: Value) {
    let replies = soon("a publish reply", poster.post(&json!({"channel": channel, "data": data}))).await;
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert_eq!(replies[0]["successful"], true, "{replies:?}");
}

/// A complete round on a fresh session: handshake, subscribe, publish, connect, disconnect. Panics with `after` if
/// the node no longer serves.
pub async fn round(addr: SocketAddr, after: &str) {
    let mut client = Client::handshake(addr).await;
    client.subscribe("/health/check").await;
    let mut publisher = Poster::new(addr);
    publish(&mut publisher, "/health/check", json!(after)).await;
    let mut data = client.poll_at_once().await.data();
    if data.is_empty() {
        // The first connect of a session may be answered before the message is there.
        data = client.poll_at_once().await.data();
    }
    assert_eq!(data, [json!(after)], "the node serves on after {after}");
    client.disconnect().await;
}
