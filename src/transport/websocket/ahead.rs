//! Frames that were read together and wait for their turn: publishes next to each other share one step of the engine. Owned by
//! `connection.rs`.
//!
//! One order per connection: frames are processed as they came. Anything but publishes is the last that is read ahead, and
//! so is what a service answers: it may take its time. (A frame that cannot be parsed is refused when it is read.)

use std::collections::VecDeque;

use crate::bayeux::Message;
use crate::server::is_stored;

/// Messages that are read ahead, and of one step.
const MESSAGES: usize = 64;
/// Bytes of frames that are read ahead (one frame may exceed it).
const BYTES: usize = 128 * 1024;

/// Frames that wait for their turn.
#[derive(Default)]
pub(super) struct Ahead {
    frames: VecDeque<Frame>,
    messages: usize,
    bytes: usize,
    /// The last frame holds something else than publishes.
    closed: bool,
}

struct Frame {
    messages: Vec<Message>,
    bytes: usize,
    /// It holds publishes only. Known since it was read: looking at messages again that have waited costs more.
    publishes: bool,
}

/// Whether a frame may be processed together with others of its kind.
fn only_publishes(messages: &[Message]) -> bool {
    !messages.is_empty() && messages.iter().all(is_stored)
}

impl Ahead {
    /// Whether one more frame may be read.
    pub(super) fn has_room(&self) -> bool {
        !self.closed && self.messages < MESSAGES && self.bytes < BYTES
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds a frame of so many bytes.
    pub(super) fn add(&mut self, messages: Vec<Message>, bytes: usize) {
        let publishes = only_publishes(&messages);
        self.closed |= !publishes;
        self.messages += messages.len();
        self.bytes += bytes;
        self.frames.push_back(Frame { messages, bytes, publishes });
    }

    /// Takes what is to be processed next: a frame, and those behind it that may join it.
    pub(super) fn take(&mut self) -> Option<Vec<Message>> {
        let Frame { mut messages, publishes, .. } = self.pop()?;
        while publishes
            && let Some(next) = self.frames.front()
            && next.publishes
            && messages.len() + next.messages.len() <= MESSAGES
        {
            messages.extend(self.pop()?.messages);
        }
        if self.frames.is_empty() {
            *self = Self::default();
        }
        Some(messages)
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.messages -= frame.messages.len();
        self.bytes -= frame.bytes;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(channels: &[&str]) -> Vec<Message> {
        let message = |channel: &&str| Message { channel: (*channel).to_owned(), ..Message::default() };
        channels.iter().map(message).collect()
    }

    fn steps(frames: &[&[&str]]) -> Vec<Vec<String>> {
        let mut ahead = Ahead::default();
        frames.iter().for_each(|channels| ahead.add(frame(channels), 100));
        std::iter::from_fn(|| ahead.take())
            .map(|messages| messages.into_iter().map(|message| message.channel).collect())
            .collect()
    }

    #[test]
    fn neighbouring_publishes_share_a_step_and_nothing_overtakes() {
        assert_eq!(
            steps(&[&["/a"], &["/b", "/c"], &["/meta/subscribe"]]),
            [vec!["/a", "/b", "/c"], vec!["/meta/subscribe"]]
        );
        assert_eq!(steps(&[&["/a"], &["/b", "/meta/subscribe"]]), [vec!["/a"], vec!["/b", "/meta/subscribe"]]);
        assert_eq!(steps(&[&["/a"], &[]]), [vec!["/a"], vec![]]);
    }

    #[test]
    fn what_is_read_ahead_is_bounded() {
        let mut ahead = Ahead::default();
        for _ in 0..MESSAGES {
            assert!(ahead.has_room());
            ahead.add(frame(&["/a"]), 10);
        }
        assert!(!ahead.has_room());
        assert_eq!(ahead.take().map(|messages| messages.len()), Some(MESSAGES));
        assert!(ahead.has_room());

        ahead.add(frame(&["/a"]), BYTES);
        assert!(!ahead.has_room());
        assert_eq!(ahead.take().map(|messages| messages.len()), Some(1));

        ahead.add(frame(&["/meta/connect"]), 1);
        assert!(!ahead.has_room(), "nothing is read behind a connect");
        assert!(ahead.take().is_some() && ahead.has_room());

        // Large frames stay apart.
        ahead.add(frame(&["/a"; 40]), 1);
        ahead.add(frame(&["/b"; 40]), 1);
        assert_eq!(ahead.take().map(|messages| messages.len()), Some(40));
    }
}
