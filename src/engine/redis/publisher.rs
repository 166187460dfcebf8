//! The write path: messages that wait are stored in one step, in the order in which they came.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::lane::Lane;
use super::queue::{self, Entrance, Job, Most, Queue, Said, said};
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
}

/// Where messages are handed in.
pub(super) struct Publisher(Entrance<Outgoing, Published>);

/// The task behind a [`Publisher`].
pub(super) struct Writer {
    shared: Arc<Shared>,
    lane: Lane,
    queue: Queue<Outgoing, Published>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, lane: Lane) -> (Self, Writer) {
        let (entrance, queue) = queue::queue(BATCH);
        (Self(entrance), Writer { shared, lane, queue })
    }

    /// Stores a message. A caller that gives up before its turn has published nothing.
    pub(super) async fn publish(&self, publication: &Publication) -> Said<Published> {
        said(self.hand_in(publication).await).await
    }

    /// Puts a message into the queue, which keeps the order; gives where its outcome will come.
    pub(super) async fn hand_in(
        &self,
        publication: &Publication,
    ) -> Result<oneshot::Receiver<Said<Published>>, EngineError> {
        let channel = publication.channel.as_str();
        let mut message = Vec::with_capacity(channel.len() + 1 + publication.array.len());
        message.extend_from_slice(channel.as_bytes());
        message.push(b' ');
        message.extend_from_slice(&publication.array);
        let patterns = publication.channel.expand().into_iter().collect();
        let Publication { retention, fingerprint, .. } = *publication;
        let bytes = message.len();
        self.0.hand_in(Outgoing { message, patterns, retention, fingerprint }, bytes).await
    }
}

impl Writer {
    /// Stores what comes, until all [`Publisher`]s are gone.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.queue.next(&self.lane).await {
            self.store(batch).await;
        }
    }

    async fn store(&self, batch: Vec<Job<Outgoing, Published>>) {
        let settings = &self.shared.settings;
        let script = &self.shared.scripts.publish;
        let outcome = self.lane.run(script, |command| {
            command.arg(millis(settings.log_age)).arg(settings.log_entries);
            command.arg(millis(settings.idempotency_window)).arg(settings.fingerprints);
            command.arg(settings.retained).arg(batch.len());
            for Job { wanted, .. } in &batch {
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
        let outcomes = outcome.await.and_then(|value| reply::published(script, value, batch.len(), settings.retained));
        match outcomes {
            Ok(outcomes) => {
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    if let Ok(Published::Stored(position)) = outcome {
                        self.shared.acknowledged(position);
                    }
                    job.say(outcome);
                }
            }
            Err(error) => queue::refuse(batch, &error),
        }
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
