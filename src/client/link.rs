//! A way to the server: a WebSocket or a pair of HTTP connections. Sends batches and brings what the server says, until it
//! breaks. Knows no sessions; used by the driver.

mod polling;
mod socket;

use std::time::Duration;

use http::HeaderMap;

pub(super) use self::polling::Polling;
pub(super) use self::socket::Socket;
use super::Transport;
use super::endpoint::Endpoint;
use super::error::LinkError;
use crate::bayeux::Message;

/// Bytes of one message of the server, at the most.
const LARGEST: usize = 64 * 1024 * 1024;

/// What a link must know.
#[derive(Debug)]
pub(super) struct Settings {
    pub endpoint: Endpoint,
    pub headers: HeaderMap,
    /// How long opening may take.
    pub open: Duration,
    /// How long an answer may take beyond the time that the server may hold it.
    pub patience: Duration,
    /// A socket that was silent for this long is pinged,
    pub idle: Duration,
    /// and has to show life within this time.
    pub wait: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) enum Link {
    Socket(Box<Socket>),
    Polling(Box<Polling>),
}

/// Messages for the server that go out together.
#[derive(Debug)]
pub(super) struct Batch {
    /// A JSON array.
    pub json: Vec<u8>,
    /// For how long the server may hold the answer: of a connect, and zero of all else.
    pub hold: Option<Duration>,
}

/// What comes of waiting for the server.
#[derive(Debug)]
pub(super) enum Heard {
    Messages(Vec<Message>),
    /// A request other than a connect was refused by HTTP with this status: what it carried was not done.
    Refused(u16),
}

impl Link {
    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Socket(_) => Transport::WebSocket,
            Self::Polling(_) => Transport::LongPolling,
        }
    }

    /// Takes a batch; it goes out while [`Link::hear`] waits. What is not answered is the driver's to bound.
    pub(super) fn send(&mut self, batch: Batch) -> Result<(), LinkError> {
        match self {
            Self::Socket(socket) => socket.send(batch.json),
            Self::Polling(polling) => {
                polling.send(batch);
                Ok(())
            }
        }
    }

    /// Sends what waits, and gives what the server says. Cancel-safe.
    pub(super) async fn hear(&mut self) -> Result<Heard, LinkError> {
        match self {
            Self::Socket(socket) => socket.hear().await.map(Heard::Messages),
            Self::Polling(polling) => polling.hear().await,
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Message>, LinkError> {
    // The server may send what was queued for long in one piece; the size is bounded already.
    let limits = crate::bayeux::message::Limits { max_messages: usize::MAX, max_depth: 512 };
    crate::bayeux::message::parse(bytes, &limits).map_err(|error| LinkError::Malformed(error.to_string()))
}
