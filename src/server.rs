//! The Bayeux server: what each message does and what it is answered. One file per meta operation.
//!
//! Transports hand over parsed messages with a [`RequestInfo`] and get encoded replies; no HTTP or socket is known here.

mod batch;
mod claims;
mod connect;
mod disconnect;
mod events;
mod extension;
mod handshake;
mod local;
mod patience;
mod publish;
mod request;
mod retention;
mod service;
mod spans;
mod subscribe;
mod timing;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use batch::{FrameOutcome, HttpOutcome, Reply, is_stored};
pub use claims::{Notice, OwnedClaim};
pub use connect::{Bound, HeldConnect, SocketClose};
pub use events::ServerEvent;
pub use extension::{Extension, ExtensionHandle, Verdict};
pub use local::{LocalClient, LocalError, LocalSubscription};
pub use request::{RequestId, RequestInfo, Transport};
pub use retention::{RetentionRule, RetentionRules};
pub(crate) use service::echo;
pub use service::{Call, Service, ServiceError};

use crate::bayeux::{Advice, BayeuxError, Channel, ChannelError, Dialect, Message, Pattern, Reconnect};
use crate::engine::{Delivery, Ended, EndedSession, Engine, EngineError, Form, SessionId, Touch, element};
use crate::metrics::{Limit, Metrics};
use crate::session::Sessions;
use events::Events;
use extension::Extensions;
use service::Services;

/// What the server must know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a connect is held. A session lives twice as long without being heard of.
    pub timeout: Duration,
    /// Clients that must handshake are spread over this time (Faye dialect).
    pub handshake_spread: Duration,
    /// Sessions in all nodes together.
    pub max_sessions: usize,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Bytes of a channel name.
    pub max_channel_length: usize,
    /// Segments of a channel name.
    pub max_channel_depth: usize,
    /// Bytes of messages in one poll's reply (one message may exceed it).
    pub max_reply_bytes: usize,
    /// What is kept for subscribers to come.
    pub retention: RetentionRules,
    /// Repeated publishes are looked for.
    pub idempotent: bool,
    /// A client that does nothing but stay connected is sent away after this time.
    pub max_inactivity: Option<Duration>,
}

/// The server of one node. Cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    sessions: Sessions,
    settings: Settings,
    extensions: Extensions,
    services: Services,
    events: Events,
    metrics: Arc<Metrics>,
    failures: Failures,
}

/// Pause between two log lines about the same trouble.
const QUIET: Duration = Duration::from_secs(5);

/// Failures that were not logged one by one.
#[derive(Default)]
struct Failures(parking_lot::Mutex<(Option<Instant>, u64)>);

impl Failures {
    /// Counts one; gives how many there were since the last line when it is time for another.
    fn note(&self) -> Option<u64> {
        let mut state = self.0.lock();
        let (last, count) = &mut *state;
        *count += 1;
        if last.is_some_and(|last| last.elapsed() < QUIET) {
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(count))
    }
}

impl Server {
    /// A server for the sessions of a node.
    pub fn new(sessions: Sessions, settings: Settings, metrics: Arc<Metrics>) -> Self {
        let (extensions, services, events) = (Extensions::default(), Services::default(), Events::default());
        let failures = Failures::default();
        Self(Arc::new(Inner { sessions, settings, extensions, services, events, metrics, failures }))
    }

    /// The sessions of this node.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// The counters of this node.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// The configuration that the server goes by.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    /// Adds an extension behind those that are there. Remove it with the handle.
    pub fn add_extension(&self, extension: Arc<dyn Extension>) -> ExtensionHandle {
        self.0.extensions.add(extension)
    }

    /// Removes an extension; false when it was not there.
    pub fn remove_extension(&self, handle: ExtensionHandle) -> bool {
        self.0.extensions.remove(handle)
    }

    /// Whether any extension is registered: without one, nobody needs a request's headers later.
    pub fn has_extensions(&self) -> bool {
        self.0.extensions.any()
    }

    /// Whether deliveries have to pass through extensions, one copy per receiver.
    pub fn rewrites_deliveries(&self) -> bool {
        self.0.extensions.any_outgoing()
    }

    /// What happens on this node from now on; of a publish that is under way, nothing. A listener that falls 1024 events behind is told how many it missed.
    pub fn events(&self) -> tokio::sync::broadcast::Receiver<ServerEvent> {
        self.0.events.listen()
    }

    /// A client inside this process, with a session of its own. It passes through the extensions, and may use
    /// `/service/**`.
    ///
    /// # Errors
    /// When the engine cannot make a session.
    pub async fn local_client(&self) -> Result<LocalClient, LocalError> {
        LocalClient::start(self.clone(), false).await
    }

    /// As [`Server::local_client`], for the node's own use: seen by no extension, counted nowhere.
    pub(crate) async fn internal_client(&self) -> Result<LocalClient, LocalError> {
        LocalClient::start(self.clone(), true).await
    }

    /// Ends overdue sessions, and counts those that are left. Called about once a second.
    pub async fn sweep(&self, limit: usize) {
        match self.sessions().store().sweep(limit).await {
            Ok(ended) => ended.into_iter().for_each(|session| self.session_ended(session, Ended::Expired)),
            Err(error) => self.engine_failed("sweep", &error),
        }
        match self.sessions().store().sessions().await {
            // More than an i64 can count do not fit into memory.
            Ok(count) => self.metrics().sessions.set(i64::try_from(count).unwrap_or(i64::MAX)),
            Err(error) => self.engine_failed("sessions", &error),
        }
        for session in self.sessions().take_ended_by_gap() {
            self.session_ended(session, Ended::Gap);
        }
    }

    /// A delivery as one receiver gets it; `None` when an extension drops it.
    pub async fn rewrite_delivery(&self, delivery: &Delivery, form: Form, request: &RequestInfo) -> Option<Vec<u8>> {
        let message = Message::from_delivery(element(&delivery.array_as(form)))?;
        Some(self.0.extensions.outgoing(message, request).await?.encode())
    }

    fn session_ended(&self, ended: EndedSession, why: Ended) {
        match why {
            Ended::Expired => self.metrics().expired.inc(),
            Ended::Gap => self.metrics().gaps.inc(),
            Ended::Inactive => self.metrics().inactive.inc(),
            Ended::Disconnected => {}
        }
        tracing::debug!(session = %ended.session, reason = why.as_str(), "session ended");
        for channel in ended.patterns {
            self.0.events.emit(|| ServerEvent::Unsubscribe { session: ended.session.clone(), channel });
        }
        self.0.events.emit(|| ServerEvent::Disconnect { session: ended.session });
    }

    fn engine_failed(&self, operation: &'static str, error: &EngineError) {
        self.metrics().engine_errors.inc();
        match error {
            EngineError::Full(_) | EngineError::OutOfMemory => self.metrics().limit(Limit::EngineMemory),
            EngineError::TooManyRetained(_) => self.metrics().limit(Limit::RetainedChannels),
            EngineError::Timeout(_) | EngineError::Unavailable(_) => {}
        }
        // Many clients meet the same failure: a line for the first, and then one every few seconds.
        match self.0.failures.note() {
            Some(since) => tracing::warn!(%error, operation, failed = since, "engine calls fail"),
            None => tracing::debug!(%error, operation, "engine call failed"),
        }
    }

    /// What a client is told when the engine failed.
    fn engine_error(&self, operation: &'static str, error: &EngineError) -> BayeuxError {
        self.engine_failed(operation, error);
        match error {
            EngineError::Full(limit) => {
                BayeuxError::limit(503, "", format!("Out of memory for messages: the limit is {limit} bytes"))
            }
            EngineError::TooManyRetained(limit) => {
                BayeuxError::limit(503, "", format!("Too many retained channels: the limit is {limit}"))
            }
            EngineError::OutOfMemory => BayeuxError::limit(503, "", "Out of memory for messages".to_owned()),
            _ => BayeuxError::unavailable("Storage unavailable, try again"),
        }
    }

    /// Whether the session exists; who does not gets the dialect's word for it.
    async fn expect_session(&self, session: &SessionId, request: &RequestInfo) -> Result<(), BayeuxError> {
        match self.sessions().store().touch(session, None).await {
            Ok(Touch::Alive | Touch::Stale) => Ok(()),
            Ok(Touch::Unknown) => Err(request.dialect.unknown_client(session.as_str())),
            Err(error) => Err(self.engine_error("touch", &error)),
        }
    }

    fn retry_advice(&self) -> Advice {
        Advice { reconnect: Reconnect::Retry, interval: 0, timeout: millis(self.settings().timeout) }
    }

    fn handshake_advice(&self, dialect: Dialect) -> Advice {
        let spread = if dialect.jitters_handshake() { millis(self.settings().handshake_spread) } else { 0 };
        let interval = if spread == 0 { 0 } else { fastrand::u64(0..=spread) };
        Advice { reconnect: Reconnect::Handshake, interval, timeout: millis(self.settings().timeout) }
    }

    /// Parses the channel of a publish.
    fn channel(&self, name: &str, request: &RequestInfo) -> Result<Channel, BayeuxError> {
        self.check_length(name, request)?;
        let channel = Channel::parse(name).map_err(|_| BayeuxError::invalid_channel(name))?;
        self.check_depth(name, channel.depth(), request)?;
        Ok(channel)
    }

    /// Parses the channel of a subscription.
    fn pattern(&self, name: &str, request: &RequestInfo) -> Result<Pattern, BayeuxError> {
        self.check_length(name, request)?;
        let pattern = Pattern::parse(name).map_err(|_: ChannelError| BayeuxError::invalid_channel(name))?;
        self.check_depth(name, pattern.depth(), request)?;
        Ok(pattern)
    }

    fn check_length(&self, name: &str, request: &RequestInfo) -> Result<(), BayeuxError> {
        let limit = self.settings().max_channel_length;
        if name.len() <= limit || request.internal {
            return Ok(());
        }
        self.metrics().limit(Limit::Channel);
        // Not the whole name: it may be as long as the body.
        let start: String = name.chars().take(64).collect();
        Err(BayeuxError::limit(405, start, format!("Channel too long: the limit is {limit} bytes")))
    }

    fn check_depth(&self, name: &str, depth: usize, request: &RequestInfo) -> Result<(), BayeuxError> {
        let limit = self.settings().max_channel_depth;
        if depth <= limit || request.internal {
            return Ok(());
        }
        self.metrics().limit(Limit::Channel);
        Err(BayeuxError::limit(405, name, format!("Channel too deep: the limit is {limit} segments")))
    }

    async fn incoming(&self, message: &mut Message, request: &RequestInfo) -> Verdict {
        // Before extensions: what they add may differ between the copies of a publish.
        if self.settings().idempotent && !message.channel.starts_with("/meta/") {
            message.fingerprint = message.to_fingerprint(request.dialect);
        }
        self.0.extensions.incoming(message, request).await
    }
}

/// Milliseconds of a duration, as advice has them.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The session that a message names.
fn session_of(message: &Message) -> Option<SessionId> {
    message.client_id.as_deref().map(SessionId::from)
}
