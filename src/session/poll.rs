//! One poll, from attach to reply: waits for messages, writes down what the reply will carry, and only then lets it go.

use std::time::Duration;

use tokio::time::Instant;

use super::attachment::{Batch, End, Step};
use super::registry::{Held, Sessions};
use crate::engine::{Conclude, Cursor, Ended, Engine, EngineError, Epoch, Record, RecordRequest, SessionId};

/// How long a poll that lost its session to another tab for the fourth time is kept waiting, at the most.
const CONTENTION_DELAY: Duration = Duration::from_secs(2);

/// How a poll ends.
pub enum PollOutcome {
    /// Send these; they are recorded.
    Deliver {
        /// What to send.
        batch: Batch,
        /// How far it reaches.
        upto: Cursor,
        /// To be told how the reply leaves.
        receipt: Receipt,
    },
    /// Answer without messages.
    Empty,
    /// The client disconnected: answer with advice `none`.
    Released,
    /// The session is no more.
    Unknown,
    /// Close the connection without an answer: the client waits for another one, or has to ask again.
    Hangup,
}

/// Follows a recorded reply on its way out. Dropped before [`Receipt::written`], it gives the messages back: a reply
/// that was not written completely confirms nothing.
pub struct Receipt {
    sessions: Sessions,
    /// `None` once the reply was written.
    record: Option<(SessionId, Epoch, Option<Box<str>>)>,
    /// It repeats an earlier reply: complete writes are counted.
    repeated: bool,
}

impl Receipt {
    /// The reply left this node completely.
    pub fn written(mut self) {
        let Some((session, epoch, _)) = self.record.take() else { return };
        if self.repeated {
            let sessions = self.sessions.clone();
            self.sessions
                .spawn("note a repeated reply", async move { sessions.store().written(&session, epoch).await });
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let Some((session, epoch, connect_id)) = self.record.take() else { return };
        self.sessions.metrics().replies_broken.inc();
        self.sessions.metrics().rewinds.inc();
        let sessions = self.sessions.clone();
        self.sessions.spawn("release an unwritten reply", async move {
            sessions.store().release(&session, epoch, connect_id.as_deref()).await
        });
    }
}

impl Held {
    /// Runs the poll until it can be answered, at the latest `hold` from now (plus the engine's own deadlines).
    /// Dropping the future (the client hung up) releases everything.
    ///
    /// # Errors
    /// Those of the engine, before anything was recorded.
    pub async fn poll(self, hold: Duration, max_bytes: usize) -> Result<PollOutcome, EngineError> {
        let deadline = Instant::now() + hold;
        loop {
            // All but the wait is boxed: thousands wait, and few do anything else.
            let Some(step) = self.next_until(deadline).await else { return Ok(Box::pin(self.conclude(false)).await) };
            match step {
                Step::Ended(end) => return Ok(Box::pin(self.ended_poll(end)).await),
                Step::Refresh => {
                    Box::pin(self.sessions().refresh(self.attachment())).await?;
                    if self.repeated_in_vain() {
                        return Ok(Box::pin(self.conclude(true)).await);
                    }
                }
                Step::Ready => {
                    if let Some(outcome) = Box::pin(self.deliver(max_bytes)).await {
                        return Ok(outcome);
                    }
                }
            }
        }
    }

    /// The next step; `None` when the poll's time is over. A refresh that is due runs whatever the time: what the log
    /// holds belongs into the reply of even the shortest poll.
    async fn next_until(&self, deadline: Instant) -> Option<Step> {
        if let Some(step) = self.step() {
            return Some(step);
        }
        tokio::time::timeout_at(deadline, self.next()).await.ok()
    }

    /// A repeated connect of which nothing is left to deliver (the client unsubscribed): answer it, do not let it grow.
    fn repeated_in_vain(&self) -> bool {
        self.ceiling().is_some() && self.step().is_none()
    }

    /// Records and hands over what waits. `None`: the subscriptions changed, try again.
    async fn deliver(&self, max_bytes: usize) -> Option<PollOutcome> {
        let before = self.sent();
        let batch = self.take(max_bytes);
        if batch.is_empty() {
            // A repeated connect whose range holds nothing any more finds nothing in a filled outbox. Anything else that
            // emptied it in the meantime is a step of its own.
            let in_vain = self.step() == Some(Step::Ready);
            return if in_vain { Some(Box::pin(self.conclude(true)).await) } else { None };
        }
        let upto = self.sent();
        // Armed before the record: if this future is dropped meanwhile, or the outcome is unknown, the range is given
        // back (which does nothing if it was not recorded).
        let receipt = Receipt {
            sessions: self.sessions().clone(),
            record: Some((self.session().clone(), self.epoch(), self.connect_id().map(Into::into))),
            repeated: self.ceiling().is_some(),
        };
        let request = RecordRequest {
            session: self.session(),
            epoch: self.epoch(),
            version: self.version(),
            connect_id: self.connect_id(),
            upto: &upto,
        };
        match self.sessions().store().record(request).await {
            Ok(Record::Recorded) => Some(PollOutcome::Deliver { batch, upto: upto.cursor, receipt }),
            Ok(Record::Outdated) => {
                receipt.not_recorded();
                self.untake(before);
                None
            }
            Ok(Record::Stale { same_id }) => {
                receipt.not_recorded();
                Some(if same_id { PollOutcome::Hangup } else { Box::pin(self.empty_unless_repeated()).await })
            }
            Ok(Record::Unknown) => {
                receipt.not_recorded();
                Some(PollOutcome::Unknown)
            }
            Err(error) => {
                tracing::debug!(%error, session = %self.session(), "outcome of a record unknown; closing the poll");
                Some(PollOutcome::Hangup)
            }
        }
    }

    async fn ended_poll(&self, end: End) -> PollOutcome {
        match end {
            End::Superseded { same_id: true, .. } => PollOutcome::Hangup,
            End::Superseded { contended, .. } => {
                if contended {
                    tokio::time::sleep(CONTENTION_DELAY.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                }
                self.empty_unless_repeated().await
            }
            End::Stale | End::Stopping => self.empty_unless_repeated().await,
            End::Session(Ended::Disconnected | Ended::Inactive) => PollOutcome::Released,
            End::Session(Ended::Expired | Ended::Gap) => PollOutcome::Unknown,
        }
    }

    /// A repeated connect must not be answered empty while its range is still due: the client would take that as the
    /// whole answer and confirm with its next id.
    async fn empty_unless_repeated(&self) -> PollOutcome {
        if self.ceiling().is_some() { PollOutcome::Hangup } else { self.conclude(false).await }
    }

    /// Answers without messages, if the engine agrees: a copy of this connect may have been recorded elsewhere.
    async fn conclude(&self, vain: bool) -> PollOutcome {
        match self.sessions().store().conclude(self.session(), self.epoch(), self.connect_id(), vain).await {
            Ok(Conclude::Empty) => PollOutcome::Empty,
            Ok(Conclude::Hangup) => PollOutcome::Hangup,
            Ok(Conclude::Unknown) => PollOutcome::Unknown,
            Err(error) => {
                tracing::debug!(%error, session = %self.session(), "cannot conclude a poll; closing it");
                PollOutcome::Hangup
            }
        }
    }
}

impl Receipt {
    /// Nothing was recorded: there is nothing to give back.
    fn not_recorded(mut self) {
        self.record = None;
    }
}
