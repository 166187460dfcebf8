//! HTTP and sockets on one side, the Bayeux server on the other. No Bayeux rule lives here: a transport finds the
//! messages in a request, hands them over, and writes down the answer as its wire form wants it.

mod admin;
mod answer;
mod body;
mod callback;
mod cors;
mod eventsource;
mod files;
mod mount;
mod pages;
mod polling;
mod reply;
mod routes;
mod spans;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Uri};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::bayeux::message;
use crate::server::{RequestId, Server};

pub use admin::{LogControl, LogHandle};
pub use mount::{Mount, MountError};
pub use pages::{NodeFacts, Readiness};
pub use reply::{Answering, Hangup, Later, OnSent};
pub use routes::{internal_routes, routes};
pub use spans::request_span;
pub use websocket::{Stream, TakeStream};

/// Where a request came in; put into each request by the listener.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The request's id in the log.
    pub id: RequestId,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The request's target as sent.
    pub uri: Uri,
    /// The request's headers. Here, because a filter could only copy them.
    pub headers: Arc<HeaderMap>,
}

/// When a connection that begins now has become old: about `max_age` from now, so that those that began together do not
/// end together.
pub fn old_at(max_age: Option<Duration>) -> Option<Instant> {
    max_age.map(|age| Instant::now() + age.mul_f64(0.9 + fastrand::f64() / 5.0))
}

/// What the transports must know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where Bayeux is spoken.
    pub mounts: Vec<Mount>,
    /// Whether there is a page at `/`.
    pub page: bool,
    /// Bytes of a request body or of a socket's message.
    pub max_body_bytes: usize,
    /// Bounds of a batch.
    pub batch: message::Limits,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// How long a socket without a session may say nothing.
    pub idle_timeout: Duration,
    /// How often an idle socket is pinged.
    pub websocket_ping: Duration,
    /// How long a ping may go unanswered by a peer that says nothing else.
    pub websocket_pong: Duration,
    /// How often an idle event stream gets a comment.
    pub eventsource_ping: Duration,
    /// How old a socket or stream may become, about, before its client is sent elsewhere. `None` for any age.
    pub max_connection_age: Option<Duration>,
}

/// What every transport shares. Cheap to clone.
#[derive(Clone)]
pub struct Web(Arc<Shared>);

struct Shared {
    server: Server,
    settings: Settings,
    facts: NodeFacts,
    /// Sockets and streams: the node waits for them when it stops.
    tasks: TaskTracker,
    /// Fires when the node stops.
    stop: CancellationToken,
}

impl Web {
    /// The transports of one node.
    pub fn new(
        server: Server,
        settings: Settings,
        facts: NodeFacts,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Shared { server, settings, facts, tasks, stop }))
    }

    fn server(&self) -> &Server {
        &self.0.server
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// What extensions may ask of a request's headers for as long as its poll, socket or stream is there.
    fn kept(&self, headers: &HeaderMap) -> HeaderMap {
        if self.server().has_extensions() { own(headers) } else { HeaderMap::new() }
    }
}

/// Headers with memory of their own. A clone would share the connection's read buffer, and keep all of it.
fn own(headers: &HeaderMap) -> HeaderMap {
    let mut own = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.set_sensitive(value.is_sensitive());
            own.append(name, copy);
        }
    }
    own
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_is_kept_of_headers_keeps_no_buffer() {
        let buffer = Bytes::from(b"GET / HTTP/1.1\r\nCookie: a\r\nCookie: b\r\n\r\n".to_vec());
        let mut headers = HeaderMap::new();
        for at in [24, 35] {
            let value = HeaderValue::from_maybe_shared(buffer.slice(at..=at)).expect("a letter");
            headers.append("cookie", value);
        }
        let own = own(&headers);
        drop(headers);
        assert!(buffer.is_unique());
        assert_eq!(own.get_all("cookie").iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
