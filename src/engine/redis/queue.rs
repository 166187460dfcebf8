//! What is done together: callers hand in, one task takes all that waits, as far as one call bears it. One batch is under
//! way at a time, so everything is done in the order in which it came, whatever happens to a batch. Used by `publisher`
//! and `steps`.

use tokio::sync::{mpsc, oneshot};

use super::lane::Lane;
use crate::engine::EngineError;

/// Jobs that may wait; callers wait for a place.
const PLACES: usize = 1024;

/// What a caller is told.
pub(super) type Said<S> = Result<S, EngineError>;

/// Something to be done, for a caller who waits.
pub(super) struct Job<W, S> {
    pub(super) wanted: W,
    bytes: usize,
    reply: oneshot::Sender<Said<S>>,
}

impl<W, S> Job<W, S> {
    pub(super) fn say(self, said: Said<S>) {
        // An error means that nobody waits for it any more.
        let _ = self.reply.send(said);
    }
}

/// Tells all of them that it failed.
pub(super) fn refuse<W, S>(jobs: impl IntoIterator<Item = Job<W, S>>, error: &EngineError) {
    jobs.into_iter().for_each(|job| job.say(Err(error.clone())));
}

/// Where jobs are handed in.
pub(super) struct Entrance<W, S>(mpsc::Sender<Job<W, S>>);

/// Where they are taken out.
pub(super) struct Queue<W, S> {
    jobs: mpsc::Receiver<Job<W, S>>,
    waiting: Vec<Job<W, S>>,
    most: Most,
}

/// What one batch may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Most {
    pub(super) jobs: usize,
    /// One job may exceed it.
    pub(super) bytes: usize,
}

pub(super) fn queue<W, S>(most: Most) -> (Entrance<W, S>, Queue<W, S>) {
    let (sender, jobs) = mpsc::channel(PLACES);
    (Entrance(sender), Queue { jobs, waiting: Vec::with_capacity(most.jobs), most })
}

impl<W, S> Entrance<W, S> {
    /// Puts a job of so many bytes into the queue, which keeps the order; gives where its outcome will come. A caller that
    /// gives up before the job's turn has done nothing.
    pub(super) async fn hand_in(&self, wanted: W, bytes: usize) -> Result<oneshot::Receiver<Said<S>>, EngineError> {
        let (reply, outcome) = oneshot::channel();
        self.0.send(Job { wanted, bytes, reply }).await.map_err(|_| stopped())?;
        Ok(outcome)
    }
}

/// The outcome of a job that was handed in.
pub(super) async fn said<S>(waiting: Result<oneshot::Receiver<Said<S>>, EngineError>) -> Said<S> {
    waiting?.await.unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> EngineError {
    EngineError::Unavailable("the node stops".to_owned())
}

impl<W, S> Queue<W, S> {
    /// The next batch, when `lane` can take it; nothing once all entrances are gone.
    pub(super) async fn next(&mut self, lane: &Lane) -> Option<Vec<Job<W, S>>> {
        loop {
            if self.waiting.is_empty() && self.jobs.recv_many(&mut self.waiting, self.most.jobs).await == 0 {
                return None;
            }
            // First of all: connecting may take longer than anybody waits.
            if let Err(error) = lane.ready().await {
                refuse(self.waiting.drain(..), &error);
                continue;
            }
            // Whoever does not wait any more was told that it failed: it must not happen now.
            self.waiting.retain(|job| !job.reply.is_closed());
            let mut bytes = 0;
            let fits = self.waiting.iter().take_while(|job| {
                bytes += job.bytes;
                bytes <= self.most.bytes
            });
            let count = fits.count().max(1).min(self.waiting.len());
            if count > 0 {
                return Some(self.waiting.drain(..count).collect());
            }
        }
    }

    /// Takes back what was not done: it is first in the next batch.
    pub(super) fn put_back(&mut self, jobs: Vec<Job<W, S>>) {
        self.waiting.splice(..0, jobs);
    }
}
