//! Steps of sessions: what polls and sockets ask of Redis one by one, and what nearly every request of a polling client
//! costs. Those that come while others are under way go in one call (`scripts/steps.lua`); one that comes alone is called
//! for by its caller, which spares two wake-ups. What is asked after an earlier step was answered, or given up, is done after
//! it, because what gives a record back must not overtake it: there is one connection, and nobody goes alone before all others
//! are done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use redis::{Arg, Cmd};

use super::lane::Lane;
use super::queue::{self, Entrance, Job, Most, Queue, Said, said};
use super::reply;
use super::shared::Shared;
use crate::engine::EngineError;

/// What one call does: a script holds up everybody else. It stops earlier when the sessions have many subscriptions, or
/// large messages wait for them.
const BATCH: Most = Most { jobs: 64, bytes: 64 * 1024 };
/// Room for a step's words and their bytes, as a rule.
const USUAL: (usize, usize) = (12, 160);

/// Where steps are handed in.
pub(super) struct Steps {
    entrance: Entrance<Step, Bytes>,
    path: Path,
    under_way: Arc<AtomicUsize>,
}

/// The task behind [`Steps`].
pub(super) struct Walker {
    path: Path,
    queue: Queue<Step, Bytes>,
}

/// How steps get to Redis.
#[derive(Clone)]
struct Path {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
}

/// A step that waits for others.
struct Step {
    words: Cmd,
    _place: Place,
}

/// A place among the steps that wait or are under way.
struct Place(Arc<AtomicUsize>);

impl Place {
    /// And whether there is no other.
    fn take(under_way: &Arc<AtomicUsize>) -> (Self, bool) {
        let others = under_way.fetch_add(1, Ordering::AcqRel);
        (Self(under_way.clone()), others == 0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Steps {
    pub(super) fn new(shared: Arc<Shared>, lane: Arc<Lane>) -> (Self, Walker) {
        let (entrance, queue) = queue::queue(BATCH);
        let path = Path { shared, lane };
        (Self { entrance, path: path.clone(), under_way: Arc::default() }, Walker { path, queue })
    }

    /// Does the step of this name; gives what it says. A caller that gives up before its turn has done nothing; what it
    /// hands in afterwards is done afterwards.
    ///
    /// # Errors
    /// The outcome is unknown.
    pub(super) async fn take(&self, name: &'static str, arguments: impl FnOnce(&mut Cmd)) -> Said<Bytes> {
        let mut words = Cmd::with_capacity(USUAL.0, USUAL.1);
        arguments(words.arg(name));
        let (place, alone) = Place::take(&self.under_way);
        if alone {
            // Boxed: where there is much to do, nobody is alone.
            let mut outcomes = Box::pin(self.path.walk([&words])).await?.into_iter();
            drop(place);
            match outcomes.next() {
                // The first of a call is always done.
                Some(outcome) => return outcome,
                None => return Err(reply::unexpected(&self.path.shared.scripts.steps)),
            }
        }
        let bytes = words.args_iter().map(|word| bytes_of(&word).len()).sum();
        said(self.entrance.hand_in(Step { words, _place: place }, bytes).await).await
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

impl Path {
    /// Does these steps in one call; gives what each says, nothing for those that were not done.
    async fn walk(&self, steps: impl IntoIterator<Item = &Cmd>) -> Result<Vec<Said<Bytes>>, EngineError> {
        let script = &self.shared.scripts.steps;
        let mut count = 0;
        let outcome = self.lane.run(script, |command| {
            for step in steps {
                let words = step.args_iter();
                command.arg(words.len());
                words.for_each(|word| {
                    command.arg(bytes_of(&word));
                });
                count += 1;
            }
        });
        outcome.await.and_then(|value| reply::said(script, value, count))
    }
}

impl Walker {
    /// Does what comes, until all [`Steps`] are gone.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.queue.next(&self.path.lane).await {
            self.walk(batch).await;
        }
    }

    async fn walk(&mut self, batch: Vec<Job<Step, Bytes>>) {
        match self.path.walk(batch.iter().map(|job| &job.wanted.words)).await {
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
