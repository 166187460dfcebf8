//! What goes into an engine and what comes out.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::position::{Cursor, PartitionId, Position};
use crate::bayeux::{Channel, Pattern};

/// A client's session: its Bayeux `clientId`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// A new one with 122 random bits.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SessionId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A running node. A node that starts again is another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A new one.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string()[..12].into())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Counts a session's attachments; only the newest may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

/// Counts the changes of a session's subscriptions: nobody confirms past a subscription that he does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(pub u64);

/// A message as it is stored, announced and delivered; one allocation, shared by all receivers.
#[derive(Debug)]
pub struct Delivery {
    /// The sequence domain of `position`.
    pub partition: PartitionId,
    /// Its place in the order. The same in every log that holds it: duplicates are known by it alone.
    pub position: Position,
    /// Where it was published.
    pub channel: Channel,
    /// The message as every receiver gets it: a JSON array of one object, the form of sockets and streams.
    pub array: bytes::Bytes,
}

impl Delivery {
    /// The message object alone: an element of a poll's reply.
    pub fn json(&self) -> &[u8] {
        self.array.get(1..self.array.len().saturating_sub(1)).unwrap_or_default()
    }
}

/// A subscription and the position from which it counts (exclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// What is subscribed to.
    pub pattern: Pattern,
    /// Messages up to here were published before the subscription.
    pub since: Position,
}

/// Why an engine did not do it. The outcome is unknown unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No answer within the deadline.
    #[error("no answer from the engine within {0:?}")]
    Timeout(Duration),
    /// The engine cannot be reached.
    #[error("engine unavailable: {0}")]
    Unavailable(String),
    /// Nothing was done: the memory for stored messages is used up.
    #[error("the engine holds {0} bytes of messages, its limit")]
    Full(usize),
    /// Nothing was done: the store behind the engine has no memory left.
    #[error("the engine is out of memory")]
    OutOfMemory,
}

/// Outcome of [`super::Engine::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// The session exists now.
    Created,
    /// There are as many sessions as there may be.
    TooMany,
}

/// Outcome of [`super::Engine::touch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// The session lives.
    Alive,
    /// It lives, attached by somebody else since.
    Stale,
    /// There is no such session.
    Unknown,
}

/// Outcome of [`super::Engine::subscribe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribe {
    /// A new subscription.
    Added,
    /// It was there already and keeps its start.
    Kept,
    /// The session has as many as it may have.
    TooMany,
    /// There is no such session.
    Unknown,
}

/// Outcome of [`super::Engine::unsubscribe`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsubscribe {
    /// Removed.
    Removed,
    /// There was none.
    Absent,
    /// There is no such session.
    Unknown,
}

/// How a client holds its session, as far as confirmation depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link<'a> {
    /// One poll. `retry`: the client says that its last connect failed (CometD).
    Poll {
        /// Message id of the connect.
        connect_id: Option<&'a str>,
        /// Whether it is a retry by the client's own word.
        retry: bool,
    },
    /// A WebSocket.
    Socket {
        /// Message id of the connect.
        connect_id: Option<&'a str>,
        /// Whether it is a retry by the client's own word.
        retry: bool,
    },
    /// An event stream, with the last event that the client says it has.
    Stream {
        /// From `Last-Event-ID`.
        last_event: Option<&'a LastEvent>,
    },
    /// A client inside this process.
    Local,
}

/// What an event stream's `id:` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEvent {
    /// The attachment that sent it.
    pub epoch: Epoch,
    /// The position sent.
    pub cursor: Cursor,
}

/// Input of [`super::Engine::attach`].
#[derive(Debug, Clone)]
pub struct AttachRequest<'a> {
    /// The session to attach.
    pub session: &'a SessionId,
    /// How.
    pub link: Link<'a>,
}

/// Outcome of [`super::Engine::attach`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attach {
    /// The node holds the session now.
    Attached(Attached),
    /// A copy of an older connect that arrives late: answer it empty, nothing else happened.
    Late,
    /// This stream was superseded by another one: it shall stay closed.
    Closed,
    /// There is no such session.
    Unknown,
}

/// An attachment as the engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Presented with every write.
    pub epoch: Epoch,
    /// The subscriptions and their version.
    pub version: Version,
    /// The subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// The newest position of each subscription's log, in their order; zero for a log that is not there.
    pub heads: Vec<Position>,
    /// Of the heads: what is stored from now on lies past it.
    pub clock: Cursor,
    /// Deliver what lies past it.
    pub cursor: Cursor,
    /// A repeated poll never grows: deliver nothing past this.
    pub ceiling: Option<Cursor>,
    /// The first connect of the session.
    pub first: bool,
}

/// Outcome of [`super::Engine::subscriptions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscriptions {
    /// As they are now.
    Current(Version, Vec<Subscription>),
    /// Another attachment holds the session.
    Stale,
    /// There is no such session.
    Unknown,
}

/// Input of [`super::Engine::record`].
#[derive(Debug, Clone)]
pub struct RecordRequest<'a> {
    /// The session.
    pub session: &'a SessionId,
    /// Under which attachment.
    pub epoch: Epoch,
    /// Knowing which subscriptions.
    pub version: Version,
    /// The connect that is about to be answered.
    pub connect_id: Option<&'a str>,
    /// The last positions that the reply carries.
    pub upto: &'a Cursor,
}

/// Outcome of [`super::Engine::record`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// Send the reply, whatever happens now.
    Recorded,
    /// The subscriptions changed: read them, then the logs, then try again.
    Outdated,
    /// Another attachment holds the session.
    Stale {
        /// It answers a copy of the same connect.
        same_id: bool,
    },
    /// There is no such session.
    Unknown,
}

/// Outcome of [`super::Engine::conclude`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclude {
    /// Answer without messages.
    Empty,
    /// Close the connection without an answer: a copy of the connect carries, or may carry, messages.
    Hangup,
    /// There is no such session.
    Unknown,
}

/// What a [`Commit`] reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The client has received it.
    Confirmed,
    /// It was written to an event stream.
    Flushed,
}

/// Progress of one attachment.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The session.
    pub session: SessionId,
    /// Under which attachment.
    pub epoch: Epoch,
    /// Knowing which subscriptions.
    pub version: Version,
    /// How far.
    pub cursor: Cursor,
    /// In which sense.
    pub progress: Progress,
}

/// Outcome of one [`Commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Written.
    Committed,
    /// The subscriptions changed; report again once they are known.
    Outdated,
    /// Another attachment holds the session: end this one.
    Stale,
    /// There is no such session.
    Unknown,
}

/// Input of [`super::Engine::read`].
#[derive(Debug, Clone)]
pub struct ReadRequest<'a> {
    /// The session for which is read.
    pub session: &'a SessionId,
    /// Under which attachment.
    pub epoch: Epoch,
    /// Knowing which subscriptions.
    pub version: Version,
    /// Each log with the position after which to read.
    pub from: &'a [(Pattern, Position)],
    /// At most so many messages.
    pub max_messages: usize,
    /// At most so many bytes (but at least one message).
    pub max_bytes: usize,
}

/// Outcome of [`super::Engine::read`].
#[derive(Debug, Clone)]
pub enum Read {
    /// All that the logs hold up to `upto`, in order, each message once.
    Snapshot(Snapshot),
    /// The logs no longer hold what the session missed: it was ended, the client is to be told.
    Gap(EndedSession),
    /// The subscriptions changed since.
    Outdated,
    /// Another attachment holds the session.
    Stale,
    /// There is no such session.
    Unknown,
}

/// Several logs at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// In order of position.
    pub deliveries: Vec<Arc<Delivery>>,
    /// Nothing is missing up to here. The clock, unless a bound cut the read short.
    pub upto: Cursor,
    /// A bound cut the read short: there is more.
    pub truncated: bool,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The client said so.
    Disconnected,
    /// The client was not heard of for too long.
    Expired,
    /// The logs no longer hold what it missed.
    Gap,
}

impl Ended {
    /// For logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Expired => "expired",
            Self::Gap => "gap",
        }
    }
}

/// A session that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedSession {
    /// Which.
    pub session: SessionId,
    /// What it was subscribed to.
    pub patterns: Vec<Pattern>,
}

/// What a node is told on its feed.
#[derive(Debug)]
pub enum FeedEvent {
    /// A message was appended to a log.
    Message {
        /// Which log.
        log: Pattern,
        /// The log's entry before this one. A node that has not seen it missed something.
        previous: Position,
        /// The message.
        delivery: Arc<Delivery>,
        /// Its share of the bytes that may wait in the feed, given back with the event.
        room: Option<OwnedSemaphorePermit>,
    },
    /// Something about a session that this node holds.
    Control(Control),
    /// Announcements may be missing from here on.
    Broken,
    /// The feed runs again: read subscriptions and logs.
    Restored,
}

/// What a node is told about a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Which session.
    pub session: SessionId,
    /// What happened.
    pub what: ControlKind,
}

/// What happened to a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlKind {
    /// Another node attached it.
    Superseded {
        /// The newer attachment.
        epoch: Epoch,
        /// The connect that made it.
        connect_id: Option<Box<str>>,
    },
    /// Its subscriptions changed.
    Resubscribed {
        /// The newest version.
        version: Version,
    },
    /// It is no more.
    Ended(Ended),
}
