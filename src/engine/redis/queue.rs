//! What is done together: callers hand in, one task takes all that waits, as far as one call bears it. One batch is under
//! way at a time, so everything is done in the order in which it came, whatever happens to a batch. Used by `publisher`
//! and `steps`.

use tokio::sync::mpsc::error::TrySendError;
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
pub(super) struct Entrance<W, S> {
    jobs: mpsc::Sender<Job<W, S>>,
    most: Most,
}

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
    (Entrance { jobs: sender, most }, Queue { jobs, waiting: Vec::with_capacity(most.jobs), most })
}

impl<W, S> Entrance<W, S> {
    /// Puts a job of so many bytes into the queue, which keeps the order; gives where its outcome will come. A caller that
    /// gives up before the job's turn has done nothing.
    pub(super) async fn hand_in(&self, wanted: W, bytes: usize) -> Result<oneshot::Receiver<Said<S>>, EngineError> {
        let (reply, outcome) = oneshot::channel();
        match self.jobs.try_send(Job { wanted, bytes, reply }) {
            Ok(()) => {}
            // Boxed: mostly there is a place, and room to wait for one would be copied with each call.
            Err(TrySendError::Full(job)) => Box::pin(self.jobs.send(job)).await.map_err(|_| stopped())?,
            Err(TrySendError::Closed(_)) => return Err(stopped()),
        }
        Ok(outcome)
    }

    /// As [`Entrance::hand_in`] for each of these, which stay together as far as one batch holds them: where many wait for
    /// a place, those of others would come between them otherwise.
    pub(super) async fn hand_in_together(
        &self,
        wanted: impl ExactSizeIterator<Item = (W, usize)>,
    ) -> Vec<Result<oneshot::Receiver<Said<S>>, EngineError>> {
        let mut wanted = wanted.fuse();
        let mut outcomes = Vec::with_capacity(wanted.len());
        while wanted.len() > 0 {
            let places = self.jobs.reserve_many(wanted.len().min(self.most.jobs).min(PLACES)).await;
            let Ok(places) = places else {
                outcomes.extend(wanted.by_ref().map(|_| Err(stopped())));
                break;
            };
            for (place, (wanted, bytes)) in places.zip(wanted.by_ref()) {
                let (reply, outcome) = oneshot::channel();
                place.send(Job { wanted, bytes, reply });
                outcomes.push(Ok(outcome));
            }
        }
        outcomes
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Two callers with many jobs each, and a queue that is full: theirs do not mix.
    #[tokio::test]
    async fn what_is_handed_in_together_stays_together() {
        const MANY: usize = 10;
        let (entrance, mut queue) = queue::<usize, ()>(Most { jobs: MANY, bytes: 1000 });
        for _ in 0..PLACES {
            entrance.hand_in(0, 1).await.expect("there is room");
        }
        let jobs = |caller: usize| entrance.hand_in_together((0..2 * MANY).map(move |_| (caller, 1)));
        let taking = async {
            let mut taken = Vec::new();
            while taken.len() < PLACES + 4 * MANY {
                taken.extend(queue.jobs.recv().await.map(|job| job.wanted));
                // One place after the other becomes free.
                tokio::task::yield_now().await;
            }
            taken
        };
        let (.., taken) = tokio::join!(jobs(1), jobs(2), taking);
        let taken = &taken[PLACES..];
        let rows: Vec<_> = taken.chunk_by(|one, next| one == next).map(<[usize]>::len).collect();
        assert!(rows.iter().all(|row| row % MANY == 0), "{rows:?}");
    }

    #[tokio::test]
    async fn more_than_there_are_places() {
        let (entrance, mut queue) = queue::<usize, ()>(Most { jobs: 64, bytes: 1000 });
        let all = 3 * PLACES + 1;
        let taking = async {
            let mut taken = Vec::new();
            while taken.len() < all {
                taken.extend(queue.jobs.recv().await.map(|job| job.wanted));
            }
            taken
        };
        let (outcomes, taken) = tokio::join!(entrance.hand_in_together((0..all).map(|number| (number, 1))), taking);
        assert!(outcomes.len() == all && outcomes.iter().all(Result::is_ok));
        assert_eq!(taken, (0..all).collect::<Vec<_>>());
        drop(queue);
        let outcomes = entrance.hand_in_together((0..3).map(|number| (number, 1))).await;
        assert!(outcomes.len() == 3 && outcomes.iter().all(Result::is_err), "the node stops");
    }
}
