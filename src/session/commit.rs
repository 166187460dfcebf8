//! Commits the confirmed positions of sockets and streams lazily, in batches: never a write per message and receiver.

use std::time::Duration;

use super::attachment::End;
use super::committer::Dirty;
use super::registry::{Held, Sessions};
use crate::engine::{Commit, CommitOutcome, Ended, Engine, EngineError, Progress, Reach, SessionId};

/// How often progress is written. What was confirmed since is delivered again if the node dies.
pub const COMMIT_EVERY: Duration = Duration::from_secs(2);
/// Sessions per engine call, and replays (of one session as many as there are): publishes wait for it in Redis.
const BATCH: usize = 64;

impl Held {
    /// The client has everything up to here; written to the engine with the next batch.
    pub fn confirm(&self, upto: &Reach) {
        self.attachment().confirm(upto);
        self.sessions().committer().note(self.attachment(), Progress::Confirmed);
    }

    /// Everything up to here was written to the event stream.
    pub fn flushed(&self, upto: &Reach) {
        self.attachment().confirm(upto);
        self.sessions().committer().note(self.attachment(), Progress::Flushed);
    }

    /// Ends the attachment in order: what was confirmed is written exactly, and nothing can follow under its epoch.
    ///
    /// # Errors
    /// Those of the engine; then some messages may be delivered again.
    pub async fn detach(self, progress: Progress) -> Result<(), EngineError> {
        let item = self.attachment().progress(progress);
        self.sessions().store().detach(&item).await
    }
}

impl Sessions {
    /// Writes the progress of all attachments that made some. Called every [`COMMIT_EVERY`], and when the node stops.
    /// Gives how many there were.
    pub async fn commit(&self) -> usize {
        let mut dirty: Vec<Dirty> = self.committer().0.lock().drain().map(|(_, dirty)| dirty).collect();
        let count = dirty.len();
        while !dirty.is_empty() {
            let (mut batch, mut items, mut replays) = (Vec::new(), Vec::new(), 0);
            while batch.len() < BATCH
                && replays < BATCH
                && let Some(one) = dirty.pop()
            {
                let item: Commit = one.attachment.progress(one.progress);
                replays += item.upto.replays.len();
                items.push(item);
                batch.push(one);
            }
            match self.store().commit(&items).await {
                Ok(outcomes) => {
                    for ((dirty, outcome), item) in batch.into_iter().zip(outcomes).zip(&items) {
                        self.metrics().commits.inc_by(u64::from(outcome == CommitOutcome::Committed));
                        if outcome == CommitOutcome::Committed && item.progress == Progress::Confirmed {
                            dirty.attachment.committed(&item.upto);
                        }
                        self.settle(dirty, outcome);
                    }
                }
                Err(error) => {
                    dirty.extend(batch);
                    tracing::debug!(%error, sessions = dirty.len(), "could not commit confirmed positions; later again");
                    // Not one batch after the other into the same trouble.
                    dirty.drain(..).for_each(|dirty| self.committer().note_again(dirty));
                }
            }
        }
        count
    }

    /// What the session's attachment on this node has confirmed is not due again on the next one: written before the
    /// session is attached anew.
    pub(super) async fn commit_before_attach(&self, session: &SessionId) -> Result<(), EngineError> {
        let Some(dirty) = self.committer().0.lock().remove(session) else { return Ok(()) };
        // Boxed: who polls has nothing to commit.
        Box::pin(self.commit_now(dirty)).await
    }

    async fn commit_now(&self, dirty: Dirty) -> Result<(), EngineError> {
        let item = dirty.attachment.progress(dirty.progress);
        // Put back if it fails, or if this is given up half-way.
        let mut unwritten = Unwritten { sessions: self, dirty: Some(dirty) };
        self.store().commit(std::slice::from_ref(&item)).await?;
        unwritten.dirty = None;
        Ok(())
    }

    fn settle(&self, dirty: Dirty, outcome: CommitOutcome) {
        match outcome {
            CommitOutcome::Committed => {}
            // The attachment reads its subscriptions anew; report again afterwards.
            CommitOutcome::Outdated => self.committer().note_again(dirty),
            CommitOutcome::Stale => dirty.attachment.end(End::Stale),
            CommitOutcome::Unknown => dirty.attachment.end(End::Session(Ended::Expired)),
        }
    }
}

/// Progress that is being written.
struct Unwritten<'a> {
    sessions: &'a Sessions,
    dirty: Option<Dirty>,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        if let Some(dirty) = self.dirty.take() {
            self.sessions.committer().note_again(dirty);
        }
    }
}
