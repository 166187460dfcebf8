//! The write path: one task takes what has queued and stores it in one step. One batch is under way at a time, so that
//! messages are stored in the order in which they came, whatever happens to a batch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::lane::Lane;
use super::reply;
use super::shared::Shared;
use crate::bayeux::{Fingerprint, Pattern};
use crate::engine::{EngineError, Publication, Published, Retention};

/// Messages that may wait; publishers wait for a place.
const QUEUE: usize = 1024;
/// Messages of one batch: a script holds up everybody else.
const BATCH: usize = 32;
/// Bytes of one batch (one message may exceed it).
const BATCH_BYTES: usize = 256 * 1024;

type Outcome = Result<Published, EngineError>;

/// A message on its way.
struct Job {
    /// `<channel> <array>`
    message: Vec<u8>,
    patterns: Vec<Pattern>,
    retention: Option<Retention>,
    fingerprint: Option<Fingerprint>,
    reply: oneshot::Sender<Outcome>,
}

impl Job {
    fn refuse(self, error: &EngineError) {
        // An error means that nobody waits for it any more.
        let _ = self.reply.send(Err(error.clone()));
    }
}

/// Where messages are handed in.
pub(super) struct Publisher(mpsc::Sender<Job>);

/// The task behind a [`Publisher`].
pub(super) struct Writer {
    shared: Arc<Shared>,
    lane: Lane,
    jobs: mpsc::Receiver<Job>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, lane: Lane) -> (Self, Writer) {
        let (sender, jobs) = mpsc::channel(QUEUE);
        (Self(sender), Writer { shared, lane, jobs })
    }

    /// Stores a message. A caller that gives up before its turn has published nothing.
    pub(super) async fn publish(&self, publication: &Publication) -> Outcome {
        said(self.hand_in(publication).await).await
    }

    /// Puts a message into the queue, which keeps the order; gives where its outcome will come.
    pub(super) async fn hand_in(&self, publication: &Publication) -> Result<oneshot::Receiver<Outcome>, EngineError> {
        let channel = publication.channel.as_str();
        let mut message = Vec::with_capacity(channel.len() + 1 + publication.array.len());
        message.extend_from_slice(channel.as_bytes());
        message.push(b' ');
        message.extend_from_slice(&publication.array);
        let (reply, outcome) = oneshot::channel();
        let patterns = publication.channel.expand().into_iter().collect();
        let Publication { retention, fingerprint, .. } = *publication;
        let job = Job { message, patterns, retention, fingerprint, reply };
        self.0.send(job).await.map_err(|_| stopped())?;
        Ok(outcome)
    }
}

/// The outcome of a message that was handed in.
pub(super) async fn said(waiting: Result<oneshot::Receiver<Outcome>, EngineError>) -> Outcome {
    waiting?.await.unwrap_or_else(|_| Err(stopped()))
}

fn stopped() -> EngineError {
    EngineError::Unavailable("the node stops".to_owned())
}

impl Writer {
    /// Stores what comes, until all [`Publisher`]s are gone.
    pub(super) async fn run(mut self) {
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
            if waiting.is_empty() && self.jobs.recv_many(&mut waiting, BATCH).await == 0 {
                return;
            }
            // First of all: connecting may take longer than anybody waits.
            if let Err(error) = self.lane.ready().await {
                waiting.drain(..).for_each(|job| job.refuse(&error));
                continue;
            }
            // Whoever does not wait any more was told that it failed: it must not happen now.
            waiting.retain(|job| !job.reply.is_closed());
            let mut bytes = 0;
            let fits = waiting.iter().take_while(|job| {
                bytes += job.message.len();
                bytes <= BATCH_BYTES
            });
            let count = fits.count().max(1).min(waiting.len());
            let batch: Vec<_> = waiting.drain(..count).collect();
            if !batch.is_empty() {
                self.store(batch).await;
            }
        }
    }

    async fn store(&self, batch: Vec<Job>) {
        let settings = &self.shared.settings;
        let script = &self.shared.scripts.publish;
        let outcome = self.lane.run(script, |command| {
            command.arg(millis(settings.log_age)).arg(settings.log_entries);
            command.arg(millis(settings.idempotency_window)).arg(settings.fingerprints);
            command.arg(settings.retained).arg(batch.len());
            for job in &batch {
                command.arg(&job.message);
                match &job.fingerprint {
                    Some(fingerprint) => command.arg(&fingerprint.0[..]),
                    None => command.arg(""),
                };
                match job.retention {
                    Some(kept) => command.arg(millis(kept.age)).arg(kept.length),
                    None => command.arg("").arg(""),
                };
                command.arg(job.patterns.len());
                for pattern in &job.patterns {
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
                    // An error means that nobody waits for it any more.
                    let _ = job.reply.send(outcome);
                }
            }
            Err(error) => batch.into_iter().for_each(|job| job.refuse(&error)),
        }
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
