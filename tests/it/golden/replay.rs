//! Sends the recorded requests, scenario by scenario in their order, and collects what differs.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::compare::Sessions;
use super::differences::{Rules, is_delivery};
use super::exchange::{Exchange, ExpectedBody, Step};
use super::pairs::{self, Pair};
use super::unrecorded;
use crate::support::http::{Connection, Response, request};
use crate::support::soon;
use crate::support::websocket::{Frame, RawSocket, frame, opcode};

/// The three servers that were captured.
pub struct Servers {
    /// Timeout 45 s.
    pub a: SocketAddr,
    /// Mount `/faye`, timeout 1 s.
    pub b: SocketAddr,
    /// As A, with extensions.
    pub c: SocketAddr,
}

impl Servers {
    fn of(&self, pair: &Pair) -> SocketAddr {
        match pair.server.as_str() {
            "A" => self.a,
            "B" => self.b,
            "C" => self.c,
            other => panic!("{}: no server {other}", pair.name),
        }
    }
}

/// Replays all pairs; one line for each that differs.
pub async fn all(servers: &Servers, rules: &Rules) -> Vec<String> {
    let pairs = pairs::load();
    let mut failures = Vec::new();
    for scenario in pairs.chunk_by(|left, right| left.scenario == right.scenario) {
        let mut replay = Replay { rules, sessions: Sessions::new(rules.session_id()), held: None };
        for (index, pair) in scenario.iter().enumerate() {
            let next = scenario.get(index + 1);
            if let Err(failure) = replay.one(pair, next, servers.of(pair)).await {
                failures.push(format!("{}: {failure}", pair.name));
            }
        }
    }
    failures
}

struct Replay<'a> {
    rules: &'a Rules,
    sessions: Sessions,
    /// A poll that was sent before the pair that records it.
    held: Option<Connection>,
}

impl Replay<'_> {
    async fn one(&mut self, pair: &Pair, next: Option<&Pair>, addr: SocketAddr) -> Result<(), String> {
        unrecorded::before(pair, addr, &mut self.sessions).await;
        let exchange = self.rules.exchange(pair);
        if !exchange.steps.is_empty() {
            return self.websocket(pair, &exchange, addr).await;
        }
        if let Some(held) = next.filter(|next| next.name == "deliver/held-connect-released") {
            let exchange = self.rules.exchange(held);
            self.held = Some(unrecorded::hold(addr, &self.request(held, &exchange)).await);
            // The answer to this pair comes on another connection.
            return self.http(pair, &self.rules.exchange(pair), Connection::open(addr).await).await;
        }
        match self.held.take() {
            Some(mut held) => {
                let response = soon("the held poll is released", held.held_response()).await;
                self.released(&exchange, response, addr).await
            }
            None => self.http(pair, &exchange, Connection::open(addr).await).await,
        }
    }

    async fn http(&mut self, pair: &Pair, exchange: &Exchange, mut connection: Connection) -> Result<(), String> {
        connection.send(&self.request(pair, exchange)).await;
        let response = connection.response().await;
        self.sessions.answer_alike(exchange, &response)
    }

    /// Compares the answer to a held poll, which may carry only the first of the expected messages.
    async fn released(&mut self, exchange: &Exchange, mut response: Response, addr: SocketAddr) -> Result<(), String> {
        let expected = match &exchange.body {
            ExpectedBody::Json { value: Value::Array(messages), .. } => messages.len(),
            _ => 0,
        };
        let Value::Array(mut messages) = response.json() else { return Err(response.text()) };
        if exchange.may_need_second_poll && messages.len() > 1 && messages.len() < expected {
            let connect = serde_json::json!({"channel": "/meta/connect", "clientId": messages[0]["clientId"],
                "connectionType": "long-polling", "id": "another"});
            let mut connection = Connection::open(addr).await;
            connection.send(&crate::support::http::json_request("/bayeux", connect.to_string().as_bytes())).await;
            let Value::Array(rest) = connection.response().await.json() else { return Err("no array".into()) };
            messages.extend(rest.into_iter().filter(is_delivery));
            response.body = Value::Array(messages).to_string().into_bytes();
        }
        self.sessions.answer_alike(exchange, &response)
    }

    fn request(&self, pair: &Pair, exchange: &Exchange) -> Vec<u8> {
        let headers: Vec<_> = pair.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // Only text names sessions; what is not UTF-8 goes out as it is.
        let body = exchange.request_body.as_ref().map(|body| match std::str::from_utf8(body) {
            Ok(text) => self.sessions.fill_in(text).into_bytes(),
            Err(_) => body.clone(),
        });
        request(&pair.method, &self.sessions.fill_in(&pair.path), &headers, body.as_deref())
    }

    async fn websocket(&mut self, pair: &Pair, exchange: &Exchange, addr: SocketAddr) -> Result<(), String> {
        let headers: Vec<_> = pair.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (response, socket) = RawSocket::upgrade(addr, &pair.path, &headers).await;
        self.sessions.answer_alike(exchange, &response)?;
        let mut socket = socket.ok_or("no WebSocket")?;
        let mut steps = exchange.steps.as_slice();
        while let Some((step, rest)) = steps.split_first() {
            steps = rest;
            match step {
                Step::Send { opcode, text } => {
                    socket.send(&frame(*opcode, self.sessions.fill_in(text).as_bytes())).await;
                }
                Step::Receive(messages) if exchange.free_framing => {
                    let more = rest.iter().map_while(|step| match step {
                        Step::Receive(messages) => Some(messages),
                        _ => None,
                    });
                    steps = &rest[more.clone().count()..];
                    let expected: Vec<Value> = messages.iter().chain(more.flatten()).cloned().collect();
                    self.receive_group(&expected, &mut socket).await?;
                }
                Step::Receive(messages) => {
                    let received = text_frame(socket.next_frame()).await?.messages();
                    self.sessions.alike(&Value::Array(messages.clone()), &Value::Array(received))?;
                }
                Step::Ping(payload) => {
                    let ping = soon("a ping", socket.next_frame()).await;
                    let expected = Frame { opcode: opcode::PING, payload: payload.clone().into_bytes() };
                    if ping.as_ref() != Some(&expected) {
                        return Err(format!("expected ping {payload}, got {ping:?}"));
                    }
                }
                Step::Close(code) => {
                    let received = soon("a close frame", socket.next()).await;
                    if received.as_ref().and_then(Frame::close_code) != Some(*code) {
                        return Err(format!("expected close {code}, got {received:?}"));
                    }
                }
                Step::Silence(seconds) => {
                    if let Ok(Some(received)) = timeout(Duration::from_secs_f64(*seconds), socket.next()).await {
                        return Err(format!("expected silence, got {received:?}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Receives as many messages as are expected, in any number of frames: the deliveries in their order, the replies
    /// in theirs.
    async fn receive_group(&mut self, expected: &[Value], socket: &mut RawSocket) -> Result<(), String> {
        let mut received = Vec::new();
        while received.len() < expected.len() {
            received.extend(text_frame(socket.next()).await?.messages());
        }
        let (wanted_deliveries, wanted_replies) = split(expected);
        let (deliveries, replies) = split(&received);
        self.sessions.alike(&wanted_replies, &replies)?;
        self.sessions.alike(&wanted_deliveries, &deliveries)
    }
}

/// Deliveries and replies, as JSON arrays.
fn split(messages: &[Value]) -> (Value, Value) {
    let (deliveries, replies) = messages.iter().cloned().partition(is_delivery);
    (Value::Array(deliveries), Value::Array(replies))
}

async fn text_frame(next: impl Future<Output = Option<Frame>>) -> Result<Frame, String> {
    match soon("a text frame", next).await {
        Some(frame) if frame.opcode == opcode::TEXT => Ok(frame),
        other => Err(format!("expected a text frame, got {other:?}")),
    }
}
