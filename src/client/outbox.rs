//! Publishes that are not answered yet, in their order: what was sent, and behind it what was not. Bounded by count and
//! bytes. Pure; used by the driver.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ClientError;
use crate::bayeux::Message;

/// Where the outcome of something goes.
pub(super) type Outcome = oneshot::Sender<Result<(), ClientError>>;

/// A publish of the user.
#[derive(Debug)]
pub(super) struct Publish {
    pub message: Message,
    /// Known by this when it is sent again, by servers that know how.
    pub key: uuid::Uuid,
    /// Until then there must be an answer.
    pub deadline: Instant,
    pub done: Outcome,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    bytes: usize,
    publish: Publish,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    entries: VecDeque<Entry>,
    /// So many, from the front, were sent over the current link.
    sent: usize,
    bytes: usize,
    /// Something here is refused as a whole batch: one at a time, to find out what.
    careful: bool,
    last: u64,
}

/// Publishes that may wait.
const MOST: usize = 1_000;
/// Their bytes; one message may be larger.
const MOST_BYTES: usize = 4 * 1024 * 1024;

impl Outbox {
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < MOST && self.bytes < MOST_BYTES
    }

    /// Sent and not answered.
    pub(super) fn under_way(&self) -> bool {
        self.sent > 0
    }

    /// Whether batches must hold one message.
    pub(super) fn is_careful(&self) -> bool {
        self.careful
    }

    pub(super) fn push(&mut self, publish: Publish) {
        self.last += 1;
        let bytes = publish.message.data.as_ref().map_or(0, |data| data.get().len()) + publish.message.channel.len();
        self.bytes += bytes;
        self.entries.push_back(Entry { id: self.last, bytes, publish });
    }

    /// The next one to be sent, with its id; it counts as sent.
    pub(super) fn next(&mut self) -> Option<(u64, &Publish)> {
        if self.careful && self.sent > 0 {
            return None;
        }
        let entry = self.entries.get(self.sent)?;
        self.sent += 1;
        Some((entry.id, &entry.publish))
    }

    /// Takes out what was answered.
    pub(super) fn answered(&mut self, id: u64) -> Option<Publish> {
        let at = self.entries.iter().take(self.sent).position(|entry| entry.id == id)?;
        self.sent -= 1;
        let entry = self.entries.remove(at)?;
        self.bytes -= entry.bytes;
        self.careful &= !self.entries.is_empty();
        Some(entry.publish)
    }

    /// The link is gone: all that is not answered goes out again, in its order.
    pub(super) fn send_again(&mut self) {
        self.sent = 0;
    }

    /// The batch under way was refused as such. Gives the publish that is to blame, once it is known.
    pub(super) fn batch_refused(&mut self) -> Option<Publish> {
        let alone = self.sent == 1;
        self.careful = true;
        if !alone {
            self.sent = 0;
            return None;
        }
        let id = self.entries.front()?.id;
        self.answered(id)
    }

    /// The first moment at which one is too late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.publish.deadline)
    }

    /// Takes out what is too late.
    pub(super) fn expired(&mut self, now: Instant) -> Option<Publish> {
        // All have the same patience, so the first is the oldest.
        self.entries.front().filter(|entry| entry.publish.deadline <= now)?;
        let entry = self.entries.pop_front()?;
        self.sent = self.sent.saturating_sub(1);
        self.bytes -= entry.bytes;
        Some(entry.publish)
    }

    /// Takes out everything.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Publish> {
        (self.sent, self.bytes) = (0, 0);
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.publish)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn publish(channel: &str, deadline: Instant) -> Publish {
        let message = Message { channel: channel.to_owned(), ..Message::default() };
        Publish { message, key: uuid::Uuid::nil(), deadline, done: oneshot::channel().0 }
    }

    fn outbox(channels: &[&str]) -> Outbox {
        let mut outbox = Outbox::default();
        let now = Instant::now();
        channels.iter().for_each(|channel| outbox.push(publish(channel, now + Duration::from_secs(1))));
        outbox
    }

    fn sent(outbox: &mut Outbox) -> Vec<(u64, String)> {
        std::iter::from_fn(|| outbox.next().map(|(id, publish)| (id, publish.message.channel.clone()))).collect()
    }

    #[tokio::test]
    async fn unanswered_ones_go_again_in_their_order() {
        let mut outbox = outbox(&["/a", "/b", "/c"]);
        assert_eq!(sent(&mut outbox).len(), 3);
        assert_eq!(outbox.answered(2).expect("sent").message.channel, "/b");
        assert!(outbox.answered(2).is_none() && outbox.under_way());
        outbox.send_again();
        assert!(outbox.answered(1).is_none(), "not sent over this link");
        outbox.push(publish("/d", Instant::now()));
        let again: Vec<_> = sent(&mut outbox);
        assert_eq!(again, [(1, "/a".to_owned()), (3, "/c".to_owned()), (4, "/d".to_owned())]);
    }

    #[tokio::test]
    async fn who_spoils_a_batch_is_found() {
        let mut outbox = outbox(&["/a", "/b", "/c"]);
        sent(&mut outbox);
        assert!(outbox.batch_refused().is_none());
        assert_eq!(sent(&mut outbox).len(), 1, "one at a time");
        assert!(outbox.answered(1).is_some());
        assert_eq!(sent(&mut outbox).len(), 1);
        assert_eq!(outbox.batch_refused().expect("alone").message.channel, "/b");
        assert_eq!(sent(&mut outbox).len(), 1);
        assert!(outbox.answered(3).is_some() && !outbox.is_careful());
    }

    #[tokio::test]
    async fn bounds_and_deadlines() {
        let mut outbox = outbox(&["/a"]);
        sent(&mut outbox);
        let later = Instant::now() + Duration::from_secs(2);
        assert!(outbox.deadline().is_some_and(|deadline| deadline < later));
        assert!(outbox.expired(Instant::now()).is_none());
        assert!(outbox.expired(later).is_some() && outbox.expired(later).is_none() && !outbox.under_way());
        for _ in 0..MOST {
            assert!(outbox.has_room());
            outbox.push(publish("/a", later));
        }
        assert!(!outbox.has_room());
        assert_eq!(outbox.drain().count(), MOST);
        assert!(outbox.has_room() && outbox.bytes == 0);
    }
}
