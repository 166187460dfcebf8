//! A Bayeux client: publishes and subscribes over WebSocket, or long-polling where that is blocked, and keeps at it: it
//! reconnects, goes on where it was, and sends again what was not acknowledged (`docs/rust-client.md`).
//!
//! ```no_run
//! # async fn run() -> Result<(), weft::client::ClientError> {
//! let client = weft::Client::connect("http://127.0.0.1:8000/bayeux").await?;
//! let mut room = client.subscribe("/chat/*").await?;
//! client.publish("/chat/lobby", &"hello").await?;
//! while let Some(message) = room.next().await {
//!     println!("{}: {}", message.channel(), message.raw());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Works with every Bayeux server. What only Weft can do (each message exactly once, publishes stored once, replay) is used where
//! the server says that it can. Uses `bayeux` and nothing of the server.

mod backoff;
mod builder;
mod driver;
mod endpoint;
mod error;
mod event;
mod extension;
mod link;
mod outbox;
mod session;
mod subscription;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

pub use self::backoff::Backoff;
pub use self::builder::ClientBuilder;
use self::driver::{Command, Status};
pub use self::error::{ClientError, Refusal};
pub use self::event::{Event, Events, Transport};
pub use self::extension::ClientExtension;
use self::outbox::Publish;
pub use self::subscription::{Received, Subscription};
use crate::bayeux::{Channel, Message, Pattern};

/// What is asked of the driver and not yet taken; more wait in their own calls.
const COMMANDS: usize = 64;

/// From where a subscription shall begin, on a server that keeps messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// With the next message that is published.
    New,
    /// With all that is kept.
    All,
    /// With what is kept after this position.
    After(u64),
}

impl Replay {
    fn to_number(self) -> i64 {
        match self {
            Self::New => -1,
            Self::All => -2,
            Self::After(position) => i64::try_from(position).unwrap_or(i64::MAX),
        }
    }
}

/// A client of one server. Clones are the same client; it ends with the last of them and of their subscriptions, or
/// by [`Client::close`].
#[derive(Debug, Clone)]
pub struct Client {
    handle: Arc<Handle>,
    /// How many messages may wait in a subscription.
    queue: usize,
    /// How long a publish may take.
    patience: Duration,
}

/// What leads to the driver.
#[derive(Debug)]
struct Handle {
    commands: mpsc::Sender<Command>,
    /// Who asks for the end waits for nothing else.
    close: mpsc::Sender<oneshot::Sender<()>>,
    events: broadcast::WeakSender<Event>,
    status: watch::Receiver<Status>,
    /// A subscription was dropped.
    gone: Arc<Notify>,
}

impl Client {
    /// A client with the usual settings, once it is connected. `url` is that of a Bayeux mount: `http`, `https`, `ws` or
    /// `wss`.
    ///
    /// # Errors
    /// [`ClientError`] when the URL is none, the server refuses, or nothing answered within 30 seconds.
    pub async fn connect(url: &str) -> Result<Self, ClientError> {
        Self::builder(url).connect().await
    }

    /// Settings for a client.
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    /// Publishes `data` (anything that serialises to JSON) and returns once the server has stored it. It is sent again
    /// over a new link if need be; Weft stores it once all the same. Dropping the future does not take it back.
    ///
    /// Acknowledgements come on the link that messages come on: whoever waits for one must not keep a [`Subscription`] of
    /// this client from being read. A loop that publishes what it reads uses [`Client::enqueue`], or a task of its own.
    ///
    /// # Errors
    /// [`ClientError`]: refused, too late, or the client is at its end.
    pub async fn publish(&self, channel: &str, data: &impl Serialize) -> Result<(), ClientError> {
        let data = serde_json::value::to_raw_value(data).map_err(|error| ClientError::Payload(error.to_string()))?;
        self.publish_raw(channel, data).await
    }

    /// As [`Client::publish`], with JSON that exists already.
    ///
    /// # Errors
    /// As [`Client::publish`].
    pub async fn publish_raw(&self, channel: &str, data: Box<RawValue>) -> Result<(), ClientError> {
        self.enqueue(channel, data).await?.await
    }

    /// Publishes without waiting for the answer: returns once the publish has its place in the order, which is that of these
    /// calls. What comes of it, the acknowledgement tells.
    ///
    /// ```no_run
    /// # async fn run(client: weft::Client, lines: Vec<Box<serde_json::value::RawValue>>) -> Result<(), weft::client::ClientError> {
    /// let mut pending = Vec::new();
    /// for line in lines {
    ///     pending.push(client.enqueue("/lines", line).await?);
    /// }
    /// for acknowledgement in pending {
    ///     acknowledgement.await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError`] when the channel is none, nothing was sent within the time for publishes, or the client is at its
    /// end.
    pub async fn enqueue(&self, channel: &str, data: Box<RawValue>) -> Result<Acknowledgement, ClientError> {
        if Channel::parse(channel).is_err() {
            return Err(ClientError::Refused(invalid(channel)));
        }
        let message = Message { channel: channel.to_owned(), data: Some(data), ..Message::default() };
        let (done, outcome) = oneshot::channel();
        let deadline = Instant::now() + self.patience;
        let publish = Publish { message, key: uuid::Uuid::new_v4(), deadline, done };
        // Waits while too much is under way, but no longer than it may take.
        let place = tokio::time::timeout_at(deadline, self.handle.commands.reserve()).await;
        let place = place.map_err(|_| ClientError::TimedOut)?;
        place.map_err(|_| self.ended())?.send(Command::Publish(Box::new(publish)));
        Ok(Acknowledgement { outcome, status: self.handle.status.clone() })
    }

    /// Subscribes to a channel or pattern (`/chat/*` for one more segment, `/chat/**` for any number). What is published
    /// after this returns is certain to come, while the session lives.
    ///
    /// # Errors
    /// [`ClientError`]: refused, too late, or the client is at its end.
    pub async fn subscribe(&self, pattern: &str) -> Result<Subscription, ClientError> {
        self.subscribe_from(pattern, None).await
    }

    /// As [`Client::subscribe`], beginning with messages that the server has kept.
    ///
    /// # Errors
    /// As [`Client::subscribe`]. Where the channel is not kept, the server refuses.
    pub async fn replay(&self, channel: &str, replay: Replay) -> Result<Subscription, ClientError> {
        self.subscribe_from(channel, Some(replay)).await
    }

    async fn subscribe_from(&self, pattern: &str, replay: Option<Replay>) -> Result<Subscription, ClientError> {
        let parsed = Pattern::parse(pattern).map_err(|_| ClientError::Refused(invalid(pattern)))?;
        let (sender, queue) = mpsc::channel(self.queue);
        let (done, outcome) = oneshot::channel();
        let command = Command::Subscribe { pattern: parsed, replay, queue: sender, done };
        // Dropped on failure, which takes it back.
        let subscription = Subscription { pattern: pattern.into(), queue, handle: self.handle.clone() };
        let asked = async {
            self.handle.commands.send(command).await.map_err(|_| self.ended())?;
            outcome.await.unwrap_or_else(|_| Err(self.ended()))
        };
        tokio::time::timeout(self.patience, asked).await.unwrap_or(Err(ClientError::TimedOut))?;
        Ok(subscription)
    }

    /// What happens to the session, from now on.
    pub fn events(&self) -> Events {
        let sender = self.handle.events.upgrade();
        // The driver is gone: a channel without a sender, that says so.
        Events(sender.map_or_else(|| broadcast::channel(1).1, |sender| sender.subscribe()))
    }

    /// The id of the session that was last connected; `None` before the first.
    pub fn session(&self) -> Option<String> {
        match &*self.handle.status.borrow() {
            Status::Connected { session, .. } => Some(session.clone()),
            _ => None,
        }
    }

    /// The link in use, or the last one; `None` before the first.
    pub fn transport(&self) -> Option<Transport> {
        match &*self.handle.status.borrow() {
            Status::Connected { transport, .. } => Some(*transport),
            _ => None,
        }
    }

    /// Ends the session, on the server too if it can be reached within a few seconds. What is published and not
    /// acknowledged by then fails. Streams end after what they hold.
    pub async fn close(&self) {
        let (done, outcome) = oneshot::channel();
        if self.handle.close.send(done).await.is_ok() {
            // Gone is as good as done.
            let _ = outcome.await;
        }
    }

    /// Waits for the first link.
    async fn connected(&self, limit: Duration) -> Result<(), ClientError> {
        let mut status = self.handle.status.clone();
        let decided = status.wait_for(|status| !matches!(status, Status::Starting(_)));
        let decided = tokio::time::timeout(limit, decided).await.map(|decided| decided.map(|status| status.clone()));
        let Ok(decided) = decided else {
            return Err(match &*self.handle.status.borrow() {
                Status::Starting(Some(reason)) => ClientError::Unreachable(reason.clone()),
                _ => ClientError::TimedOut,
            });
        };
        match &decided.map_err(|_| ClientError::Closed)? {
            Status::Refused(refusal) => Err(ClientError::Refused(refusal.clone())),
            Status::Ended(error) => Err(error.clone()),
            Status::Connected { .. } | Status::Starting(_) => Ok(()),
        }
    }

    fn ended(&self) -> ClientError {
        ended(&self.handle.status)
    }
}

/// What comes of a publish: nothing once the server has stored it, else the reason. It comes within the time for
/// publishes. Dropping it does not take the publish back.
#[derive(Debug)]
#[must_use = "only the acknowledgement tells whether it was stored"]
pub struct Acknowledgement {
    outcome: oneshot::Receiver<Result<(), ClientError>>,
    status: watch::Receiver<Status>,
}

impl Future for Acknowledgement {
    type Output = Result<(), ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(Pin::new(&mut self.outcome).poll(context));
        Poll::Ready(outcome.unwrap_or_else(|_| Err(ended(&self.status))))
    }
}

fn ended(status: &watch::Receiver<Status>) -> ClientError {
    match &*status.borrow() {
        Status::Ended(error) => error.clone(),
        _ => ClientError::Closed,
    }
}

fn invalid(channel: &str) -> Refusal {
    Refusal { code: 405, arguments: vec![channel.to_owned()], text: "Invalid channel".to_owned() }
}
