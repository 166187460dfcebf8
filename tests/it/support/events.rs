//! Reads an EventSource stream.

use std::collections::VecDeque;
use std::net::SocketAddr;

use serde_json::Value;

use super::bayeux::MOUNT;
use super::http::{Connection, Cut, request};
use super::soon;

/// One event with data.
#[derive(Debug, Clone)]
pub struct Event {
    /// The `id:` field, where there is one.
    pub id: Option<String>,
    /// The messages in its `data:` field.
    pub messages: Vec<Value>,
}

/// An open stream.
#[derive(Debug)]
pub struct EventStream {
    connection: Connection,
    chunked: bool,
    unread: String,
    events: VecDeque<Event>,
}

impl EventStream {
    /// Opens the stream of a session, after the event `last_event_id` if there is one.
    pub async fn open(addr: SocketAddr, client_id: &str, last_event_id: Option<&str>) -> Self {
        let mut connection = Connection::open(addr).await;
        let mut headers = vec![("Accept", "text/event-stream")];
        headers.extend(last_event_id.map(|id| ("Last-Event-ID", id)));
        connection.send(&request("GET", &format!("{MOUNT}/{client_id}"), &headers, None)).await;
        let head = soon("the head of an event stream", connection.head()).await;
        let (status, headers) = head.expect("a readable head").expect("a stream, not a closed connection");
        assert_eq!(status, 200, "an event stream");
        assert_eq!(headers["content-type"], "text/event-stream");
        let chunked = headers.contains_key("transfer-encoding");
        Self { connection, chunked, unread: String::new(), events: VecDeque::new() }
    }

    /// The next event with data; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            let piece = self.connection.piece(self.chunked).await?;
            self.unread += &String::from_utf8_lossy(&piece).replace("\r\n", "\n");
            while let Some((block, rest)) = self.unread.split_once("\n\n") {
                self.events.extend(parse(block));
                self.unread = rest.to_owned();
            }
        }
    }

    /// Cuts the connection.
    pub fn cut(self, how: Cut) {
        self.connection.cut(how);
    }
}

/// The event in a block of lines; `None` for comments and for `retry`.
fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        lines.map(|value| value.strip_prefix(' ').unwrap_or(value)).collect::<Vec<_>>()
    };
    let data = field("data");
    if data.is_empty() {
        return None;
    }
    let messages = serde_json::from_str(&data.join("\n")).unwrap_or_else(|error| panic!("{error}: {block}"));
    Some(Event { id: field("id").last().map(|id| (*id).to_owned()), messages })
}
