//! Replays what Faye's own client said in one session, over long-polling and over WebSocket, and compares every reply
//! that it got. Requests go out in the recorded order; what the server says is matched by message, because a node may
//! answer a first connect sooner than Faye.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::compare::Sessions;
use super::differences::{Rules, is_delivery, strip_delivery};
use crate::support::http::{Connection, json_request};
use crate::support::websocket::{RawSocket, opcode};
use crate::support::{nothing_within, soon};

/// One line of `tests/golden/faye-client-traffic.jsonl`.
#[derive(Debug, Deserialize)]
struct Record {
    label: String,
    #[serde(default)]
    dir: String,
    #[serde(default)]
    kind: String,
    body: Option<String>,
    code: Option<u16>,
}

/// The session over long-polling.
pub async fn long_polling(addr: SocketAddr, rules: &Rules) {
    Player::new(addr, rules).play("long-polling").await;
}

/// The session over WebSocket.
pub async fn websocket(addr: SocketAddr, rules: &Rules) {
    Player::new(addr, rules).play("websocket").await;
}

/// What came from the server: the messages of an answer or a frame, or the code of a close frame.
#[derive(Debug)]
enum Arrival {
    Messages(Vec<Value>),
    Closed(u16),
}

struct Player {
    addr: SocketAddr,
    sessions: Sessions,
    to_socket: Option<mpsc::UnboundedSender<String>>,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    arrived: mpsc::UnboundedSender<Arrival>,
    /// Messages that have arrived and were not expected yet.
    waiting: Vec<Value>,
    close_code: Option<u16>,
}

impl Player {
    fn new(addr: SocketAddr, rules: &Rules) -> Self {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let sessions = Sessions::new(rules.session_id());
        Self { addr, sessions, to_socket: None, arrivals, arrived, waiting: Vec::new(), close_code: None }
    }

    async fn play(mut self, label: &str) {
        for record in load(label) {
            match (record.dir.as_str(), record.kind.as_str()) {
                (">", "ws-open") => self.open_socket().await,
                (">", _) => self.send(&record).await,
                ("<", "ws-close") => self.closed(record.code).await,
                ("<", _) => self.receive(record.body.as_deref().expect("a recorded body")).await,
                _ => {}
            }
        }
        self.nothing_unexpected();
    }

    async fn send(&mut self, record: &Record) {
        let Some(body) = &record.body else { return };
        if body.contains("/meta/disconnect") {
            // The poll before it came first, and is held.
            nothing_within(Duration::from_millis(300), "the poll is held", self.arrivals.recv()).await;
        }
        let body = self.sessions.fill_in(body);
        match (&self.to_socket, record.kind.as_str()) {
            (Some(socket), "ws") => socket.send(body).expect("the socket is open"),
            _ => self.post(&body),
        }
    }

    /// Posts over a connection of its own, as clients with several requests under way do.
    fn post(&self, body: &str) {
        let (request, addr, arrived) = (json_request("/bayeux", body.as_bytes()), self.addr, self.arrived.clone());
        tokio::spawn(async move {
            let mut connection = Connection::open(addr).await;
            connection.send(&request).await;
            let response = connection.held_response().await;
            let messages = serde_json::from_slice(&response.body).expect("an array of replies");
            // The test may have failed meanwhile.
            let _ = arrived.send(Arrival::Messages(messages));
        });
    }

    async fn open_socket(&mut self) {
        let mut socket = RawSocket::open(self.addr, "/bayeux").await;
        let (to_socket, mut outgoing) = mpsc::unbounded_channel::<String>();
        let arrived = self.arrived.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(text) = outgoing.recv() => socket.send_text(&text).await,
                    frame = socket.next() => {
                        let Some(frame) = frame else { return };
                        let arrival = match frame.close_code() {
                            Some(code) => Arrival::Closed(code),
                            None => Arrival::Messages(frame.messages()),
                        };
                        let _ = arrived.send(arrival);
                        if frame.opcode == opcode::CLOSE {
                            return;
                        }
                    }
                }
            }
        });
        self.to_socket = Some(to_socket);
    }

    /// Waits for the messages of one recorded answer or frame.
    async fn receive(&mut self, body: &str) {
        let expected: Vec<Value> = serde_json::from_str(body).expect("recorded JSON");
        for mut message in expected {
            as_weft_says_it(&mut message);
            let actual = self.next_like(&message).await;
            if let Err(difference) = self.sessions.alike(&message, &actual) {
                panic!("{difference}");
            }
        }
    }

    /// The reply with the same id, or the next delivery.
    async fn next_like(&mut self, expected: &Value) -> Value {
        let is_it = |message: &Value| match is_delivery(expected) {
            true => is_delivery(message),
            false => !is_delivery(message) && message["id"] == expected["id"],
        };
        loop {
            if let Some(at) = self.waiting.iter().position(is_it) {
                return self.waiting.remove(at);
            }
            self.arrive(&expected.to_string()).await;
        }
    }

    async fn closed(&mut self, code: Option<u16>) {
        while self.close_code.is_none() {
            self.arrive("a close frame").await;
        }
        assert_eq!(self.close_code, code, "close code");
    }

    async fn arrive(&mut self, what: &str) {
        match soon(what, self.arrivals.recv()).await.expect("this end is open") {
            Arrival::Messages(messages) => self.waiting.extend(messages),
            Arrival::Closed(code) => self.close_code = Some(code),
        }
    }

    /// All that may be left is the connect that the disconnect released; Faye leaves it unanswered on a socket.
    fn nothing_unexpected(&self) {
        let released = |message: &Value| message["advice"]["reconnect"] == "none" && message["successful"] == true;
        let allowed = |message: &&Value| released(message);
        let unexpected: Vec<_> = self.waiting.iter().filter(|message| !allowed(message)).collect();
        assert!(unexpected.is_empty(), "not expected: {unexpected:?}");
    }
}

/// The records of one session, with the recorded session id as a name.
fn load(label: &str) -> Vec<Record> {
    let parse = |line| serde_json::from_str::<Record>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines = include_str!("../../golden/faye-client-traffic.jsonl").lines();
    let mut records: Vec<_> = lines.map(parse).filter(|record| record.label == label).collect();
    let recorded_id = records.iter().filter(|record| record.dir == "<").find_map(|record| {
        let replies: Value = serde_json::from_str(record.body.as_deref()?).ok()?;
        Some(replies[0]["clientId"].as_str()?.to_owned())
    });
    let recorded_id = recorded_id.expect("a recorded handshake");
    for body in records.iter_mut().filter_map(|record| record.body.as_mut()) {
        *body = body.replace(&recorded_id, "{{session}}");
    }
    records
}

/// The same deliberate differences as in the pairs, and one more: a disconnect releases the held poll (`b`) with the
/// advice not to come back, where Faye says nothing special.
fn as_weft_says_it(message: &mut Value) {
    strip_delivery(message);
    if message["channel"] == "/meta/connect" && message["id"] == "b" {
        message["advice"]["reconnect"] = json!("none");
    }
}
