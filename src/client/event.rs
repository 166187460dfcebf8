//! What a client tells beside messages: how its session and its link fare. Heard by whoever asked for it.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::Refusal;

/// How a client reaches its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// HTTP requests that the server holds until there is something to say.
    LongPolling,
}

impl Transport {
    /// The name in Bayeux, `websocket` or `long-polling`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::LongPolling => "long-polling",
        }
    }
}

/// Something happened to a client's session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The first link of a session stands.
    Connected {
        /// The session's id.
        session: String,
        /// The link.
        transport: Transport,
    },
    /// The session goes on over another link. Nothing was lost.
    Resumed {
        /// The link.
        transport: Transport,
    },
    /// The server made a new session: the first, or because it no longer knew the one before.
    NewSession {
        /// Its id.
        session: String,
        /// The id of the one before.
        previous: Option<String>,
    },
    /// The new session goes on exactly where the last one ended. Nothing was lost.
    Recovered,
    /// Messages may be missing.
    Gap {
        /// On these channels and patterns; empty when all may be concerned.
        channels: Vec<String>,
    },
    /// A failure; the next attempt follows after a pause.
    Retry {
        /// Failures in a row.
        attempt: u32,
        /// Until the next attempt.
        pause: Duration,
        /// What failed.
        reason: String,
    },
    /// A subscription that the server had accepted was refused when it was made again. Its stream ends.
    Unsubscribed {
        /// The channel or pattern.
        channel: String,
        /// Why.
        refusal: Refusal,
    },
    /// The server wants the client to stop, or it was closed. Nothing comes after this.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Events of one client, from the moment it was asked for. Who is far behind misses the oldest.
#[derive(Debug)]
pub struct Events(pub(super) broadcast::Receiver<Event>);

impl Events {
    /// The next event; `None` when there are no more. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
