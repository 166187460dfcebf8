//! What goes into an engine and what comes out.

use std::sync::Arc;
use std::time::Duration;

use super::delivery::Delivery;
use super::ids::{Epoch, SessionId, Version};
use super::position::{Cursor, Position};
use super::replay::{Reach, ReplayStart};
use crate::bayeux::Pattern;

/// A subscription and the position from which it counts (exclusive).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// What is subscribed to.
    pub pattern: Pattern,
    /// Messages up to here were published before the subscription.
    pub since: Position,
    /// A replay is due: of what was published past this, up to `since`.
    pub replay: Option<Position>,
}

/// What a session asked for when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// Its connects acknowledge by number ([`Claim::Ack`]).
    pub ack: bool,
    /// It remembers its position ([`Claim::Position`]), and is told of gaps instead of being ended.
    pub resume: bool,
    /// It wants to see positions, to ask for replays with them.
    pub replay: bool,
}

impl Traits {
    /// Whether its messages carry their positions.
    pub fn positions(self) -> bool {
        self.resume || self.replay
    }
}

/// Input of [`super::Engine::create`].
#[derive(Debug, Clone)]
pub struct Creation<'a> {
    /// The session to make.
    pub session: &'a SessionId,
    /// It ends so long after its last handshake or connect.
    pub lifetime: Duration,
    /// Sessions that may exist.
    pub max: usize,
    /// What it asked for.
    pub traits: Traits,
    /// It goes on from here with these subscriptions, as another session did before it. Each counts from its own start
    /// if that is later.
    pub resumed: Option<(&'a Cursor, &'a [Subscription])>,
}

impl<'a> Creation<'a> {
    /// A plain session.
    pub fn new(session: &'a SessionId, lifetime: Duration, max: usize) -> Self {
        Self { session, lifetime, max, traits: Traits::default(), resumed: None }
    }
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
    /// Nothing was done: as many channels are retained as may be.
    #[error("{0} channels are retained, the limit")]
    TooManyRetained(usize),
}

/// Outcome of [`super::Engine::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Create {
    /// The session exists now, and starts past this.
    Created(Cursor),
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
    Added {
        /// Its start.
        since: Position,
        /// Where its replay starts, if one was wished.
        replay: Option<ReplayStart>,
    },
    /// It was there already and keeps its start.
    Kept {
        /// Its start.
        since: Position,
        /// Where its replay has come to, if it is still due.
        replay: Option<ReplayStart>,
    },
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
        /// What the client says that it has.
        claim: Option<Claim<'a>>,
    },
    /// A WebSocket.
    Socket {
        /// Message id of the connect.
        connect_id: Option<&'a str>,
        /// Whether it is a retry by the client's own word.
        retry: bool,
        /// What the client says that it has.
        claim: Option<Claim<'a>>,
    },
    /// An event stream, with the last event that the client says it has.
    Stream {
        /// From `Last-Event-ID`.
        last_event: Option<&'a LastEvent>,
    },
    /// A client inside this process.
    Local,
}

/// How a session is attached, without the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum LinkKind {
    /// A poll.
    Poll,
    /// A WebSocket.
    Socket,
    /// An event stream.
    Stream,
    /// A client inside this process.
    Local,
}

impl Link<'_> {
    /// Which of them it is.
    pub fn kind(&self) -> LinkKind {
        match self {
            Self::Poll { .. } => LinkKind::Poll,
            Self::Socket { .. } => LinkKind::Socket,
            Self::Stream { .. } => LinkKind::Stream,
            Self::Local => LinkKind::Local,
        }
    }
}

/// What a client says that it has. Counts only if its session asked for that when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim<'a> {
    /// The number of the last reply that it got, which is a position: everything up to it has arrived, and only that.
    Ack(Position),
    /// It has processed everything up to here, and wants what lies past it.
    Position(&'a Cursor),
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

/// Messages of [`Attached::unread`], and their bytes, at the most.
pub(super) const UNREAD_MESSAGES: usize = 16;
pub(super) const UNREAD_BYTES: usize = 16 * 1024;

/// The end of a log, as an attach finds it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its newest position; zero for a log that is not there.
    pub position: Position,
    /// No other session is subscribed to it, as far as that is known: this node is told of its messages without listening to
    /// it, as long as it holds the session and nobody else comes.
    pub alone: bool,
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
    /// The end of each subscription's log, in their order.
    pub heads: Vec<Head>,
    /// All that the logs hold past the cursor and the start of each subscription, in order of position, if that is little;
    /// `None` when it is to be read, because it is more, a log lacks some of it, or a replay comes before it.
    pub unread: Option<Vec<Arc<Delivery>>>,
    /// Of the heads: what is stored from now on lies past it.
    pub clock: Cursor,
    /// Deliver what lies past it.
    pub cursor: Cursor,
    /// A repeated poll never grows: deliver nothing past this.
    pub ceiling: Option<Reach>,
    /// The first connect of the session.
    pub first: bool,
    /// What the session asked for when it was made.
    pub traits: Traits,
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
    /// How far the reply reaches.
    pub upto: &'a Reach,
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
    pub upto: Reach,
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
    /// A log no longer holds all that the session missed; up to where. Told again by reads that begin below. Only for
    /// sessions with [`Traits::resume`]: any other is ended.
    pub lost: Option<Position>,
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
    /// The client stayed connected, and did nothing for too long.
    Inactive,
}

impl Ended {
    /// Whether that is the last word: the client shall not come back by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Disconnected | Self::Inactive)
    }

    /// For logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Expired => "expired",
            Self::Gap => "gap",
            Self::Inactive => "inactive",
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
