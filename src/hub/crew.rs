//! Who writes what a fan-out has put into outboxes: the feed's reader itself, and for large crowds a task for each further
//! worker thread. Owned by the hub while it reads the feed.

use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Receiver;

/// Receivers that are served in one go, before other tasks get their turn.
const CHUNK: usize = 128;
/// Room to encode in that is kept: what one receiver is written at once, and the heads of its frames.
const SCRATCH: usize = 128 * 1024;
/// More tasks than that have never been tried.
const MAX_HANDS: usize = 15;

type Chunk = Vec<Arc<dyn Receiver>>;

/// The tasks, each with room for one chunk that waits.
pub(super) struct Crew {
    hands: Vec<mpsc::Sender<Chunk>>,
    tasks: JoinSet<()>,
    /// Room to encode in, of the reader itself.
    scratch: Vec<u8>,
}

impl Crew {
    /// A crew for the runtime of the caller.
    pub(super) fn new() -> Self {
        let workers = Handle::current().metrics().num_workers();
        let mut tasks = JoinSet::new();
        let hands = (1..workers.min(MAX_HANDS + 1)).map(|_| {
            let (sender, mut chunks) = mpsc::channel::<Chunk>(1);
            tasks.spawn(async move {
                let mut scratch = Vec::new();
                while let Some(chunk) = chunks.recv().await {
                    push(&chunk, &mut scratch);
                }
            });
            sender
        });
        let hands = hands.collect();
        Self { hands, tasks, scratch: Vec::new() }
    }

    /// Lets the messages of all these receivers leave. Returns when the reader's own share is done.
    pub(super) async fn push(&mut self, mut due: Chunk) {
        while due.len() > CHUNK {
            let mut chunk = due.split_off(due.len() - CHUNK);
            for hand in &self.hands {
                match hand.try_send(chunk) {
                    Ok(()) => {
                        chunk = Chunk::new();
                        break;
                    }
                    Err(mpsc::error::TrySendError::Full(back) | mpsc::error::TrySendError::Closed(back)) => {
                        chunk = back;
                    }
                }
            }
            if !chunk.is_empty() {
                push(&chunk, &mut self.scratch);
                tokio::task::yield_now().await;
            }
        }
        push(&due, &mut self.scratch);
    }

    /// Ends the tasks, after what they were given.
    pub(super) async fn leave(mut self) {
        self.hands.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

fn push(chunk: &[Arc<dyn Receiver>], scratch: &mut Vec<u8>) {
    for receiver in chunk {
        receiver.push(scratch);
    }
    // One large message must not be remembered for ever.
    scratch.shrink_to(SCRATCH);
}
