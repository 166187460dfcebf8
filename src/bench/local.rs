//! What the clients of one thread share: a big read buffer, counts and histograms, random choices, and how a
//! connection is opened. Nothing here is locked for long: one thread, no waiting.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::frames::FrameError;
use super::http::HttpError;
use super::plan::Endpoint;
use super::pool::Pools;
use super::shared::{Live, Shared, histogram};

/// How long a connection may take to open, and an answer to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// The read buffer that all connections of a thread share, in bytes.
const BUFFER: usize = 256 * 1024;

/// Why a client has no connection.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error("no answer to {0} within 10 s")]
    Late(&'static str),
    #[error("it answered with status {0}: does the URL end in the path of a mount, such as /bayeux?")]
    Status(u16),
    #[error("{0} refused: {1}")]
    Refused(&'static str, String),
    #[error("the session is gone")]
    SessionGone,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Http(#[from] HttpError),
}

/// Times of opening a client, in microseconds.
#[derive(Debug)]
pub(super) struct Opening {
    pub tcp: Histogram<u64>,
    pub upgrade: Histogram<u64>,
    pub handshake: Histogram<u64>,
    pub subscribe: Histogram<u64>,
    pub connect: Histogram<u64>,
    /// From the first packet until it stands.
    pub whole: Histogram<u64>,
}

impl Opening {
    pub(super) fn new() -> Self {
        Self {
            tcp: histogram(),
            upgrade: histogram(),
            handshake: histogram(),
            subscribe: histogram(),
            connect: histogram(),
            whole: histogram(),
        }
    }

    /// Each with its name.
    pub(super) fn each(&mut self) -> [(&'static str, &mut Histogram<u64>); 6] {
        [
            ("tcp", &mut self.tcp),
            ("upgrade", &mut self.upgrade),
            ("handshake", &mut self.handshake),
            ("subscribe", &mut self.subscribe),
            ("connect", &mut self.connect),
            ("whole", &mut self.whole),
        ]
    }
}

/// Takes the times of the steps of an opening.
pub(super) struct Laps {
    begin: u64,
    last: u64,
    /// Nothing for a step that this kind of client does not have.
    times: Vec<Option<u64>>,
}

impl Laps {
    pub(super) fn new(local: &Local) -> Self {
        let now = local.shared.now();
        Self { begin: now, last: now, times: Vec::with_capacity(5) }
    }

    /// A step is done.
    pub(super) fn lap(&mut self, local: &Local) {
        let now = local.shared.now();
        self.times.push(Some(now - self.last));
        self.last = now;
    }

    /// There is no such step.
    pub(super) fn skip(&mut self) {
        self.times.push(None);
    }

    /// All steps are done.
    pub(super) fn record(self, local: &Local) {
        let mut counts = local.counts.borrow_mut();
        let whole = Some(self.last - self.begin);
        for ((_, histogram), time) in counts.opening.each().into_iter().zip(self.times.into_iter().chain([whole])) {
            if let Some(time) = time {
                histogram.saturating_record(time.max(1));
            }
        }
    }
}

/// Counts of one thread that nobody else needs before the end.
#[derive(Debug)]
pub(super) struct Counts {
    /// From due to delivered, in microseconds.
    pub latency: Histogram<u64>,
    /// From due to the answer for the publisher, in microseconds.
    pub publish_latency: Histogram<u64>,
    /// From due to sent, in microseconds: how late the generator itself is.
    pub lag: Histogram<u64>,
    pub opening: Opening,
    pub connected: u64,
    pub connect_failures: u64,
    /// Sessions that the server did not know any more.
    pub refused_sessions: u64,
    /// Connections that broke though nobody wanted it.
    pub broken: u64,
    /// Requests that failed and were repeated.
    pub request_failures: u64,
    pub duplicate: u64,
    pub out_of_order: u64,
    /// Messages of streams that the receiver did not ask for.
    pub unexpected: u64,
    /// Messages that clients which came and went got.
    pub churn_delivered: u64,
    /// Messages that they missed between their first and their last.
    pub churn_lost: u64,
    /// Clients that came and went.
    pub churned: u64,
    /// Messages that could not be sent: the server does not read, or too many are under way.
    pub unsent: u64,
    pub unanswered: u64,
    /// When the first connection broke, in microseconds since the epoch.
    pub first_break: Option<u64>,
    /// When the server opened a WebSocket again, and when the last client was back.
    pub accepted_again: Option<u64>,
    pub last_back: Option<u64>,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            latency: histogram(),
            publish_latency: histogram(),
            lag: histogram(),
            opening: Opening::new(),
            connected: 0,
            connect_failures: 0,
            refused_sessions: 0,
            broken: 0,
            request_failures: 0,
            duplicate: 0,
            out_of_order: 0,
            unexpected: 0,
            churn_delivered: 0,
            churn_lost: 0,
            churned: 0,
            unsent: 0,
            unanswered: 0,
            first_break: None,
            accepted_again: None,
            last_back: None,
        }
    }
}

/// See the module.
pub(super) struct Local {
    pub shared: Arc<Shared>,
    /// Which of the threads.
    pub index: usize,
    pub buffer: RefCell<Vec<u8>>,
    pub scratch: RefCell<Vec<u8>>,
    pub counts: RefCell<Counts>,
    pub random: RefCell<fastrand::Rng>,
    pub pools: Pools,
    next_source: Cell<usize>,
}

impl Local {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        let seed = shared.load.seed ^ (u64::from(shared.run) << 32) ^ index as u64;
        Self {
            index,
            buffer: RefCell::new(vec![0; BUFFER]),
            scratch: RefCell::default(),
            counts: RefCell::new(Counts::new()),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            pools: Pools::new(shared.target.endpoints.len()),
            next_source: Cell::new(index),
            shared,
        }
    }

    /// The counts that others may read.
    pub(super) fn live(&self) -> &Live {
        &self.shared.live[self.index]
    }

    /// A random one of the target's addresses.
    pub(super) fn endpoint(&self) -> (usize, &Endpoint) {
        let endpoints = &self.shared.target.endpoints;
        let at = if endpoints.len() == 1 { 0 } else { self.random.borrow_mut().usize(..endpoints.len()) };
        (at, &endpoints[at])
    }

    /// A random duration below `most`.
    pub(super) fn jitter(&self, most: Duration) -> Duration {
        most.mul_f64(self.random.borrow_mut().f64())
    }

    /// Takes note of a client that failed.
    pub(super) fn failed(&self, error: &ClientError) {
        let live = self.live();
        live.failed.fetch_add(1, Ordering::Relaxed);
        *live.failure.lock() = Some(error.to_string());
    }

    /// Opens a TCP connection, from the next of the source addresses if there are any.
    pub(super) async fn dial(&self, address: SocketAddr) -> Result<TcpStream, ClientError> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(ClientError::Connect)?;
        let sources = &self.shared.load.sources;
        if !sources.is_empty() {
            let next = self.next_source.get();
            self.next_source.set(next + 1);
            // The port is chosen when the other end is known too: `bind` would look at those of all ends, for 0.3 ms or
            // more when there are ten thousand. Where this cannot be asked for, it takes that long.
            let _ = setsockopt(&socket, IpBindAddressNoPort, &true);
            // And then ports of earlier rounds may still be in TIME_WAIT.
            socket.set_reuseaddr(true).map_err(ClientError::Connect)?;
            socket.bind(SocketAddr::new(sources[next % sources.len()], 0)).map_err(ClientError::Connect)?;
        }
        let connected = timeout(PATIENCE, socket.connect(address)).await;
        let stream = connected.map_err(|_| ClientError::Late("the connect of TCP"))?.map_err(ClientError::Connect)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
