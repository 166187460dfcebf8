//! The records: one captured request and its answer a line, as `tests/golden/faye-wire-pairs.jsonl` has them.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One request and the answer Faye gave. A WebSocket session is one pair with many frames.
#[derive(Debug, Deserialize)]
pub struct Pair {
    pub name: String,
    pub scenario: String,
    pub step: u32,
    /// Which of the three servers was asked: `A`, `B` or `C`.
    pub server: String,
    pub server_options: Options,
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Option<Body>,
    pub status: u16,
    pub response_headers_of_interest: BTreeMap<String, String>,
    pub response_body: Option<String>,
    #[serde(default)]
    pub frames: Vec<FrameRecord>,
}

/// The options of the server that was asked.
#[derive(Debug, Deserialize)]
pub struct Options {
    /// Seconds.
    pub timeout: f64,
}

/// A recorded request body.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Body {
    /// As it is.
    Text(String),
    /// Not UTF-8.
    Bytes { base64: String },
}

/// One recorded WebSocket frame, or a silence.
#[derive(Debug, Deserialize)]
pub struct FrameRecord {
    pub dir: String,
    pub op: Option<u8>,
    pub data: Option<String>,
    /// Close code.
    pub code: Option<u16>,
    /// Nothing came for so many seconds.
    pub none_within_s: Option<f64>,
}

impl Pair {
    /// The timeout of the server in milliseconds, as advice has it.
    pub fn timeout_ms(&self) -> u64 {
        (self.server_options.timeout * 1000.0) as u64
    }

    /// Whether the request carries this message channel.
    pub fn sends(&self, channel: &str) -> bool {
        matches!(&self.body, Some(Body::Text(text)) if text.contains(&format!("\"channel\":\"{channel}\"")))
    }
}

impl Body {
    /// The bytes to send.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Bytes { base64 } => decode_base64(base64),
        }
    }
}

/// All pairs, in the order in which they were captured.
pub fn load() -> Vec<Pair> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    include_str!("../../golden/faye-wire-pairs.jsonl").lines().map(parse).collect()
}

/// One body is recorded this way; not worth a dependency.
fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=').bytes();
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for digit in digits {
        let value = ALPHABET.iter().position(|letter| *letter == digit).expect("a base64 digit");
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
