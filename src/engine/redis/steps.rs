//! Steps of sessions: what polls and sockets ask of Redis one by one, and what nearly every request of a polling client
//! costs. Those that wait at the same time go in one call (`scripts/steps.lua`), in the order in which they came: what
//! gives a record back must not overtake it.

use std::sync::Arc;

use bytes::Bytes;
use redis::{Arg, Cmd};

use super::lane::Lane;
use super::queue::{self, Entrance, Job, Most, Queue, Said, said};
use super::reply;
use super::shared::Shared;

/// What one call does: a script holds up everybody else. It stops earlier when the sessions have many subscriptions.
const BATCH: Most = Most { jobs: 32, bytes: 64 * 1024 };
/// Room for a step's words and their bytes, as a rule.
const USUAL: (usize, usize) = (12, 160);

/// Where steps are handed in.
pub(super) struct Steps(Entrance<Cmd, Bytes>);

/// The task behind [`Steps`].
pub(super) struct Walker {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    queue: Queue<Cmd, Bytes>,
}

impl Steps {
    pub(super) fn new(shared: Arc<Shared>, lane: Arc<Lane>) -> (Self, Walker) {
        let (entrance, queue) = queue::queue(BATCH);
        (Self(entrance), Walker { shared, lane, queue })
    }

    /// Does the step of this name; gives what it says. A caller that gives up before its turn has done nothing; what it
    /// hands in afterwards is done afterwards.
    ///
    /// # Errors
    /// The outcome is unknown.
    pub(super) async fn take(&self, name: &'static str, arguments: impl FnOnce(&mut Cmd)) -> Said<Bytes> {
        let mut words = Cmd::with_capacity(USUAL.0, USUAL.1);
        arguments(words.arg(name));
        let bytes = words.args_iter().map(|word| bytes_of(&word).len()).sum();
        said(self.0.hand_in(words, bytes).await).await
    }
}

/// A word of a step.
fn bytes_of<'a>(word: &Arg<&'a [u8]>) -> &'a [u8] {
    match word {
        Arg::Simple(bytes) => bytes,
        // No step has a cursor.
        _ => b"",
    }
}

impl Walker {
    /// Does what comes, until all [`Steps`] are gone.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.queue.next(&self.lane).await {
            self.walk(batch).await;
        }
    }

    async fn walk(&mut self, batch: Vec<Job<Cmd, Bytes>>) {
        let script = &self.shared.scripts.steps;
        let outcome = self.lane.run(script, |command| {
            for Job { wanted, .. } in &batch {
                let words = wanted.args_iter();
                command.arg(words.len());
                words.for_each(|word| {
                    command.arg(bytes_of(&word));
                });
            }
        });
        match outcome.await.and_then(|value| reply::said(script, value, batch.len())) {
            Ok(outcomes) => {
                let mut undone = Vec::new();
                for (job, outcome) in batch.into_iter().zip(outcomes) {
                    match outcome {
                        Ok(said) if said.is_empty() => undone.push(job),
                        outcome => job.say(outcome),
                    }
                }
                self.queue.put_back(undone);
            }
            Err(error) => queue::refuse(batch, &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_as_they_are() {
        let mut words = Cmd::with_capacity(1, 1);
        words.arg("attach").arg("").arg(7).arg("a b\n");
        let read: Vec<_> = words.args_iter().map(|word| bytes_of(&word)).collect();
        assert_eq!(read, [&b"attach"[..], b"", b"7", b"a b\n"]);
    }
}
