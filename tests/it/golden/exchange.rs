//! What the replay of one pair sends and expects: the record, parsed once, in a form that differences can change.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pairs::{FrameRecord, Pair};
use crate::support::websocket::opcode;

/// Stands in an expected header for the length of whatever body came.
pub const REAL_LENGTH: &str = "<length of the body>";
/// Stands in expected JSON for a whole number of milliseconds, at most a minute.
pub const SOME_INTERVAL: &str = "<interval>";

/// A request and the expected answer. Strings may hold `{{name}}`: the session of that name.
#[derive(Debug)]
pub struct Exchange {
    pub request_body: Option<Vec<u8>>,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: ExpectedBody,
    pub steps: Vec<Step>,
    /// Whether deliveries and replies that answer one frame may come in any order among each other and share frames.
    pub free_framing: bool,
    /// Whether the deliveries of a released poll may be spread over two polls.
    pub may_need_second_poll: bool,
}

/// The expected body.
#[derive(Debug)]
pub enum ExpectedBody {
    /// These characters.
    Text(String),
    /// JSON between exactly these characters (the callback of JSONP).
    Json { before: String, value: Value, after: String },
    /// Whatever the host application says.
    Anything,
}

/// One step of a WebSocket session.
#[derive(Debug)]
pub enum Step {
    Send { opcode: u8, text: String },
    Receive(Vec<Value>),
    Ping(String),
    Close(u16),
    Silence(f64),
}

impl Exchange {
    /// The exchange exactly as it was recorded.
    pub fn recorded(pair: &Pair) -> Self {
        Self {
            request_body: pair.body.as_ref().map(|body| body.bytes()),
            status: pair.status,
            headers: pair.response_headers_of_interest.clone(),
            body: recorded_body(pair),
            steps: pair.frames.iter().map(step).collect(),
            free_framing: false,
            may_need_second_poll: false,
        }
    }

    /// Every message that is expected, in the body or in frames.
    pub fn messages_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        let in_body = match &mut self.body {
            ExpectedBody::Json { value: Value::Array(messages), .. } => messages.as_mut_slice(),
            _ => &mut [],
        };
        let in_frames = self.steps.iter_mut().filter_map(|step| match step {
            Step::Receive(messages) => Some(messages),
            _ => None,
        });
        in_body.iter_mut().chain(in_frames.flatten())
    }

    /// Expects this JSON with the headers of a JSON reply, instead of whatever was recorded.
    pub fn expect_reply(&mut self, value: Value) {
        self.status = 200;
        self.body = ExpectedBody::Json { before: String::new(), value, after: String::new() };
        self.headers.insert("content-type".into(), "application/json; charset=utf-8".into());
        self.headers.insert("cache-control".into(), "no-cache, no-store".into());
        self.headers.insert("x-content-type-options".into(), "nosniff".into());
    }
}

fn recorded_body(pair: &Pair) -> ExpectedBody {
    let text = pair.response_body.clone().unwrap_or_default();
    let content_type = pair.response_headers_of_interest.get("content-type").map_or("", String::as_str);
    let (start, end) = match content_type.split(';').next() {
        Some("application/json") => (0, text.len()),
        Some("text/javascript") => (text.find('(').map_or(0, |at| at + 1), text.rfind(')').unwrap_or(text.len())),
        _ => return ExpectedBody::Text(text),
    };
    let value = serde_json::from_str(&text[start..end]).unwrap_or_else(|error| panic!("{}: {error}", pair.name));
    ExpectedBody::Json { before: text[..start].to_owned(), value, after: text[end..].to_owned() }
}

fn step(record: &FrameRecord) -> Step {
    let data = || record.data.clone().expect("a recorded payload");
    match (record.dir.as_str(), record.op, record.none_within_s) {
        (">", Some(opcode), _) => Step::Send { opcode, text: data() },
        ("<", _, Some(seconds)) => Step::Silence(seconds),
        ("<", Some(opcode::TEXT), _) => Step::Receive(serde_json::from_str(&data()).expect("recorded JSON")),
        ("<", Some(opcode::PING), _) => Step::Ping(data()),
        ("<", Some(opcode::CLOSE), _) => Step::Close(record.code.expect("a recorded close code")),
        _ => panic!("a frame record of an unknown form: {record:?}"),
    }
}
