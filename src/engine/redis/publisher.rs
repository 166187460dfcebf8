//! The write path: messages that wait are stored in one step, in the order in which they came.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use redis::{RedisWrite, ToRedisArgs};
use tokio::sync::oneshot;

use super::lane::Lane;
use super::queue::{self, Entrance, Job, Most, Queue, Said, said};
use super::reply;
use super::shared::Shared;
use crate::engine::{EngineError, Publication, Published};

/// What one call stores: a script holds up everybody else, for some 20 us a message where one pattern matches. With
/// less, calls are what publishers wait for when there are many (docs/performance.md).
const BATCH: Most = Most { jobs: 256, bytes: 256 * 1024 };

/// Where messages are handed in.
pub(super) struct Publisher(Entrance<Publication, Published>);

/// The task behind a [`Publisher`].
pub(super) struct Writer {
    shared: Arc<Shared>,
    lane: Lane,
    queue: Queue<Publication, Published>,
}

impl Publisher {
    pub(super) fn new(shared: Arc<Shared>, lane: Lane) -> (Self, Writer) {
        let (entrance, queue) = queue::queue(BATCH);
        (Self(entrance), Writer { shared, lane, queue })
    }

    /// Stores a message. A caller that gives up before its turn has published nothing.
    pub(super) async fn publish(&self, publication: Publication) -> Said<Published> {
        let bytes = bytes(&publication);
        said(self.0.hand_in(publication, bytes).await).await
    }

    /// Puts messages into the queue, in their order and next to each other; gives for each where its outcome will come.
    pub(super) async fn hand_in(
        &self,
        publications: Vec<Publication>,
    ) -> Vec<Result<oneshot::Receiver<Said<Published>>, EngineError>> {
        let jobs = publications.into_iter().map(|publication| {
            let bytes = bytes(&publication);
            (publication, bytes)
        });
        self.0.hand_in_together(jobs).await
    }
}

/// What a message takes in a batch.
fn bytes(publication: &Publication) -> usize {
    publication.channel.as_str().len() + 1 + publication.array.len()
}

/// A message as the log keeps it: `<channel> <array>`, put together where the command is written.
struct Entry<'a>(&'a Publication);

impl ToRedisArgs for Entry<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let mut out = out.writer_for_next_arg();
        for part in [self.0.channel.as_str().as_bytes(), b" ", &self.0.array] {
            // It goes into memory, which cannot fail.
            let _ = out.write_all(part);
        }
    }
}

impl Writer {
    /// Stores what comes, until all [`Publisher`]s are gone.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.queue.next(&self.lane).await {
            self.store(batch).await;
        }
    }

    async fn store(&self, batch: Vec<Job<Publication, Published>>) {
        let settings = &self.shared.settings;
        let script = &self.shared.scripts.publish;
        let outcome = self.lane.run(script, |command| {
            command.arg(millis(settings.log_age)).arg(settings.log_entries);
            command.arg(millis(settings.idempotency_window)).arg(settings.fingerprints);
            command.arg(settings.retained).arg(batch.len());
            let mut patterns = String::new();
            for Job { wanted, .. } in &batch {
                command.arg(Entry(wanted));
                match &wanted.fingerprint {
                    Some(fingerprint) => command.arg(&fingerprint.0[..]),
                    None => command.arg(""),
                };
                match wanted.retention {
                    Some(kept) => command.arg(format!("{} {}", millis(kept.age), kept.length)),
                    None => command.arg(""),
                };
                patterns.clear();
                wanted.channel.expand_into(&mut patterns);
                command.arg(&patterns);
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
