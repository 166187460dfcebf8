//! Where sessions, subscriptions and messages are kept: one log per channel and wildcard pattern, one cursor per
//! session. What a session still has to get is what its logs hold past its cursor.
//!
//! [`Engine`] states the promises; [`memory`] keeps them inside one process, `redis` for many nodes. The rest of the server talks to a
//! [`Store`], which adds deadlines. `tests/it/contract` runs one suite against every engine.

mod delivery;
mod feed;
pub mod gates;
mod ids;
pub mod memory;
mod position;
#[cfg(feature = "redis")]
pub mod redis;
mod replay;
mod store;
mod types;

use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;

pub use delivery::{Delivery, Form, element};
pub use feed::{Control, ControlKind, FeedEvent};
pub use ids::{Epoch, NodeId, SessionId, Version};
pub use position::{Cursor, PartitionId, Position};
pub use replay::{Reach, Replay, ReplayRequest, ReplayStart, ReplayWish, Replayed, Retention};
pub use store::Store;
pub use types::*;

use crate::bayeux::{Channel, Fingerprint, Pattern};

/// The contract that every engine keeps. Each operation is atomic. None writes for a session that does not exist, and
/// none with an older epoch than the session's changes anything: that is how a node which was superseded is fenced off.
///
/// An `Err` means that the outcome is unknown: the operation may or may not have happened.
pub trait Engine: Send + Sync + 'static {
    /// Makes a session, unless there are too many. Its cursor starts at the clock, or where it is resumed. What a resumed
    /// subscription missed while it had no log is a gap.
    fn create(&self, creation: Creation<'_>) -> impl Future<Output = Result<Create, EngineError>> + Send;

    /// Extends the session's life; `epoch` is checked when given.
    fn touch(
        &self,
        session: &SessionId,
        epoch: Option<Epoch>,
    ) -> impl Future<Output = Result<Touch, EngineError>> + Send;

    /// As `touch` for the heartbeat of an event stream: confirms also what [`Progress::Flushed`] reported one
    /// heartbeat earlier (`docs/design.md`, "EventSource"), or in a session with [`Traits::resume`] what the client claims.
    fn heartbeat(
        &self,
        session: &SessionId,
        claim: Option<&Cursor>,
    ) -> impl Future<Output = Result<Touch, EngineError>> + Send;

    /// Ends the session, removes its subscriptions and tells the node it is attached to. `None`: there was none.
    fn end(
        &self,
        session: &SessionId,
        why: Ended,
    ) -> impl Future<Output = Result<Option<EndedSession>, EngineError>> + Send;

    /// Notes that the client did something of its own accord, and not only stayed connected.
    fn note_activity(&self, session: &SessionId) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Ends the session if its client has done nothing of its own accord for this long. `None`: it goes on, or there is
    /// none.
    fn end_inactive(
        &self,
        session: &SessionId,
        limit: Duration,
    ) -> impl Future<Output = Result<Option<EndedSession>, EngineError>> + Send;

    /// Adds a subscription, from now on, and with a replay of what was before if it is wished. One that exists keeps its
    /// start, and replays nothing. The attached node is told within the same step, so that it learns of the subscription
    /// before it sees any later message.
    fn subscribe(
        &self,
        session: &SessionId,
        pattern: &Pattern,
        max: usize,
        replay: Option<ReplayWish>,
    ) -> impl Future<Output = Result<Subscribe, EngineError>> + Send;

    /// Removes a subscription; tells the attached node as `subscribe` does.
    fn unsubscribe(
        &self,
        session: &SessionId,
        pattern: &Pattern,
    ) -> impl Future<Output = Result<Unsubscribe, EngineError>> + Send;

    /// Attaches the session to a node: settles what the last delivery confirmed, raises the epoch, extends the
    /// session's life and tells the node that held it before.
    fn attach(&self, request: AttachRequest<'_>) -> impl Future<Output = Result<Attach, EngineError>> + Send;

    /// The session's subscriptions under `epoch`, read again after they changed.
    fn subscriptions(
        &self,
        session: &SessionId,
        epoch: Epoch,
    ) -> impl Future<Output = Result<Subscriptions, EngineError>> + Send;

    /// Writes down what a poll's reply is about to carry. Only after `Recorded` may the reply be sent.
    fn record(&self, request: RecordRequest<'_>) -> impl Future<Output = Result<Record, EngineError>> + Send;

    /// Concludes a poll that delivers nothing: from now on copies of its connect are late. Only after `Empty` may the
    /// empty reply be sent. `vain`: the poll repeats a recorded reply of which nothing is left to deliver.
    fn conclude(
        &self,
        session: &SessionId,
        epoch: Epoch,
        connect_id: Option<&str>,
        vain: bool,
    ) -> impl Future<Output = Result<Conclude, EngineError>> + Send;

    /// Ends a poll whose reply certainly did not reach the client: what it recorded is due again, and a record of it that comes
    /// even later is stale.
    fn release(
        &self,
        session: &SessionId,
        epoch: Epoch,
        connect_id: Option<&str>,
    ) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Notes that a repeated reply was written completely. After three, the next connect confirms it even under the
    /// same id, so that a client with a constant id gets on.
    fn written(&self, session: &SessionId, epoch: Epoch) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Commits the progress of sockets and streams; one outcome per item, in order.
    fn commit(&self, items: &[Commit]) -> impl Future<Output = Result<Vec<CommitOutcome>, EngineError>> + Send;

    /// Ends an attachment in order: the exact confirmed position, and a new epoch so that nothing of it can follow.
    fn detach(&self, item: &Commit) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stores a message in the log of every pattern that covers its channel and has a subscriber (and in that of its
    /// channel, if that is retained), under one position, and announces it on the feed of every node that listens to one
    /// of them. One that was stored already, by its fingerprint, is not stored again.
    fn publish(&self, publication: Publication) -> impl Future<Output = Result<Published, EngineError>> + Send;

    /// Reads all the given logs as one snapshot.
    fn read(&self, request: ReadRequest<'_>) -> impl Future<Output = Result<Read, EngineError>> + Send;

    /// Reads on in a replay, which belongs to a subscription.
    fn replay(&self, request: ReplayRequest<'_>) -> impl Future<Output = Result<Replay, EngineError>> + Send;

    /// Starts the feed of these logs for this node; what is announced after the return is certain to arrive.
    fn listen(&self, logs: &[Pattern]) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Stops the feed of these logs.
    fn unlisten(&self, logs: &[Pattern]) -> impl Future<Output = Result<(), EngineError>> + Send;

    /// Ends overdue sessions, at most `limit` of them, and drops what the logs need not keep.
    fn sweep(&self, limit: usize) -> impl Future<Output = Result<Vec<EndedSession>, EngineError>> + Send;

    /// How many sessions exist, in all nodes.
    fn sessions(&self) -> impl Future<Output = Result<usize, EngineError>> + Send;
}

/// What an engine tells a node, in the order in which it happened. Bounded: a node that does not read holds up its
/// publishers, and loses nothing.
pub type Feed = mpsc::Receiver<FeedEvent>;

/// Sweeps further apart than this mean that the engine, or who sweeps, stood still: sessions could not be heard of.
fn sweep_pause(timeout: Duration) -> Duration {
    (timeout / 4).clamp(Duration::from_secs(2), Duration::from_secs(10))
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Where it was published.
    pub channel: Channel,
    /// The delivered form of the message: a JSON array of one object.
    pub array: bytes::Bytes,
    /// How long it is kept for subscribers to come, if at all.
    pub retention: Option<Retention>,
    /// By which a repetition is known.
    pub fingerprint: Option<Fingerprint>,
}

impl Publication {
    /// A message that is kept for nobody, and never taken for a repetition.
    pub fn new(channel: Channel, array: bytes::Bytes) -> Self {
        Self { channel, array, retention: None, fingerprint: None }
    }
}

/// What became of a [`Publication`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It was stored here.
    Stored(Position),
    /// It had been stored before.
    Repeated,
}
