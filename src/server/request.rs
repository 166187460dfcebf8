//! Where a message came from, as extensions and handlers see it.

use std::fmt;
use std::net::SocketAddr;

use http::HeaderMap;

use crate::bayeux::Dialect;

/// How a message travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// POST, answered with JSON.
    LongPolling,
    /// GET, answered with a script (JSONP).
    CallbackPolling,
    /// A stream of server-sent events.
    EventSource,
    /// A WebSocket.
    WebSocket,
    /// A client inside this process.
    InProcess,
}

impl Transport {
    /// The name that Bayeux has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LongPolling => "long-polling",
            Self::CallbackPolling => "callback-polling",
            Self::EventSource => "eventsource",
            Self::WebSocket => "websocket",
            Self::InProcess => "in-process",
        }
    }
}

/// What the log and traces call a request, and the socket or stream that it opened. Chosen by the node, at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

impl RequestId {
    /// Another one.
    #[allow(clippy::new_without_default)] // each is different
    pub fn new() -> Self {
        Self(fastrand::u64(..))
    }
}

impl fmt::Display for RequestId {
    /// 16 hexadecimal digits.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// The request that brought a message, or that opened the socket on which it came.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// Its id in the log.
    pub id: RequestId,
    /// How.
    pub transport: Transport,
    /// Dialect of the mount.
    pub dialect: Dialect,
    /// The HTTP headers; empty for clients inside this process, and for sockets opened while no extension was there.
    pub headers: HeaderMap,
    /// Who sent it; `None` for clients inside this process.
    pub peer: Option<SocketAddr>,
    /// The node's own (its canary): neither counted nor reported.
    pub(crate) internal: bool,
}

impl RequestInfo {
    /// A client inside this process.
    pub fn in_process() -> Self {
        Self {
            id: RequestId::new(),
            transport: Transport::InProcess,
            dialect: Dialect::Faye,
            headers: HeaderMap::new(),
            peer: None,
            internal: false,
        }
    }

    /// Whether the sender is trusted with `/meta` and `/service` subscriptions.
    pub fn is_local(&self) -> bool {
        self.transport == Transport::InProcess
    }
}
