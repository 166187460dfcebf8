//! The write path: messages that wait are stored in one step, in the order in which they came. One that comes alone is stored
//! by its caller, which spares two wake-ups; until that is done, nothing else is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

use super::lane::Lane;
use super::queue::{self, Entrance, Job, Most, Place, Places, Queue, Said, said};
use super::reply;
use super::shared::Shared;
use crate::bayeux::{Fingerprint, Pattern};
use crate::engine::{EngineError, Publication, Published, Retention};

/// What one call stores: a script holds up everybody else.
const BATCH: Most = Most { jobs: 32, bytes: 256 * 1024 };

/// A message on its way.
struct Outgoing {
    /// `<channel> <array>`
    message: Vec<u8>,
    patterns: Vec<Pattern>,
    retention: Option<Retention>,
    fingerprint: Option<Fingerprint>,
    _place: Place,
}

/// Where messages are handed in.
pub(super) struct Publisher {
    entrance: Entrance<Outgoing, Published>,
    places: Places,
    path: Path,
}

/// The task behind a [`Publisher`].
pub(super) struct Writer {
    queue: Queue<Outgoing, Published>,
    path: Path,
}

/// How messages get to Redis.
#[derive(Clone)]
struct Path {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    /// Who has it stores: one call is under way at a time, as a script that Redis has to be given first is called twice.
    turn: Arc<Semaphore>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, lane: Lane) -> (Self, Writer) {
        let (entrance, queue) = queue::queue(BATCH);
        let path = Path { shared, lane: Arc::new(lane), turn: Arc::new(Semaphore::new(1)) };
        (Self { entrance, places: Places::default(), path: path.clone() }, Writer { queue, path })
    }

    /// Stores a message. A caller that gives up before its turn has published nothing.
    pub(super) async fn publish(&self, publication: &Publication) -> Said<Published> {
        let (place, alone) = self.places.take();
        let outgoing = Outgoing::new(publication, place);
        // Somebody who came later may have the turn; then the queue decides.
        if alone && let Ok(_turn) = self.path.turn.try_acquire() {
            let mut outcomes = self.path.store(&[&outgoing]).await?.into_iter();
            return outcomes.next().unwrap_or_else(|| Err(reply::unexpected(&self.path.shared.scripts.publish)));
        }
        said(self.wait(outgoing).await).await
    }

    /// Puts a message into the queue, which keeps the order; gives where its outcome will come.
    pub(super) async fn hand_in(
        &self,
        publication: &Publication,
    ) -> Result<oneshot::Receiver<Said<Published>>, EngineError> {
        let (place, _) = self.places.take();
        self.wait(Outgoing::new(publication, place)).await
    }

    async fn wait(&self, outgoing: Outgoing) -> Result<oneshot::Receiver<Said<Published>>, EngineError> {
        let bytes = outgoing.message.len();
        self.entrance.hand_in(outgoing, bytes).await
    }
}

impl Outgoing {
    fn new(publication: &Publication, place: Place) -> Self {
        let channel = publication.channel.as_str();
        let mut message = Vec::with_capacity(channel.len() + 1 + publication.array.len());
        message.extend_from_slice(channel.as_bytes());
        message.push(b' ');
        message.extend_from_slice(&publication.array);
        let patterns = publication.channel.expand().into_iter().collect();
        let Publication { retention, fingerprint, .. } = *publication;
        Self { message, patterns, retention, fingerprint, _place: place }
    }
}

impl Writer {
    /// Stores what comes, until all [`Publisher`]s are gone.
    pub(super) async fn run(mut self) {
        while self.queue.filled().await {
            // It is never closed. Whoever has it is done within the deadlines of a call. Who gives up until then is not in
            // the batch.
            let Ok(_turn) = self.path.turn.acquire().await else { return };
            if let Some(batch) = self.queue.batch(&self.path.lane).await {
                self.store(batch).await;
            }
        }
    }

    async fn store(&self, batch: Vec<Job<Outgoing, Published>>) {
        let messages: Vec<_> = batch.iter().map(|job| &job.wanted).collect();
        match self.path.store(&messages).await {
            Ok(outcomes) => batch.into_iter().zip(outcomes).for_each(|(job, outcome)| job.say(outcome)),
            Err(error) => queue::refuse(batch, &error),
        }
    }
}

impl Path {
    /// Stores these in one call; gives what became of each.
    async fn store(&self, messages: &[&Outgoing]) -> Result<Vec<Said<Published>>, EngineError> {
        let settings = &self.shared.settings;
        let script = &self.shared.scripts.publish;
        let outcome = self.lane.run(script, |command| {
            command.arg(millis(settings.log_age)).arg(settings.log_entries);
            command.arg(millis(settings.idempotency_window)).arg(settings.fingerprints);
            command.arg(settings.retained).arg(messages.len());
            for wanted in messages {
                command.arg(&wanted.message);
                match &wanted.fingerprint {
                    Some(fingerprint) => command.arg(&fingerprint.0[..]),
                    None => command.arg(""),
                };
                match wanted.retention {
                    Some(kept) => command.arg(millis(kept.age)).arg(kept.length),
                    None => command.arg("").arg(""),
                };
                command.arg(wanted.patterns.len());
                for pattern in &wanted.patterns {
                    command.arg(pattern.as_str());
                }
            }
        });
        let outcomes = reply::published(script, outcome.await?, messages.len(), settings.retained)?;
        for outcome in &outcomes {
            if let Ok(Published::Stored(position)) = outcome {
                self.shared.acknowledged(*position);
            }
        }
        Ok(outcomes)
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
