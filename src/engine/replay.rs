//! Looking back: what is kept for subscribers to come, the replay of it, and how far a session got with both a replay
//! and its live messages.

use std::sync::Arc;
use std::time::Duration;

use super::delivery::Delivery;
use super::ids::{Epoch, SessionId, Version};
use super::position::{Cursor, Position};
use super::types::EndedSession;
use crate::bayeux::Pattern;

/// What is kept of a channel, also without a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Nothing older.
    pub age: Duration,
    /// Nothing but the newest so many messages.
    pub length: usize,
}

/// A replay that a new subscription wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayWish {
    /// Only what was published past this; everything that is kept, if it is none.
    pub after: Option<Position>,
    /// What there is to be replayed.
    pub retention: Retention,
}

/// Where a replay starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayStart {
    /// What comes lies past this.
    pub from: Position,
    /// Not everything past the wished position is kept.
    pub gap: bool,
}

/// How far a replay has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Of which channel.
    pub pattern: Pattern,
    /// Of which subscription to it.
    pub since: Position,
    /// Everything up to here. As far as `since`: it is through.
    pub upto: Position,
}

/// How far a session has got: with its live messages, and with replays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Live messages up to here.
    pub cursor: Cursor,
    /// Replays that have moved, each channel once.
    pub replays: Vec<Replayed>,
}

impl From<Cursor> for Reach {
    fn from(cursor: Cursor) -> Self {
        Self { cursor, replays: Vec::new() }
    }
}

impl Reach {
    /// How far the replay of this subscription has come, if it has moved.
    pub fn replayed(&self, pattern: &Pattern, since: Position) -> Option<Position> {
        let of = |one: &&Replayed| one.pattern == *pattern && one.since == since;
        self.replays.iter().find(of).map(|one| one.upto)
    }

    /// Moves the replay of a subscription forward; never back.
    pub fn raise_replay(&mut self, moved: &Replayed) {
        match self.replays.iter_mut().find(|one| one.pattern == moved.pattern) {
            Some(one) if one.since == moved.since => one.upto = one.upto.max(moved.upto),
            Some(one) if one.since < moved.since => *one = moved.clone(),
            Some(_) => {}
            None => self.replays.push(moved.clone()),
        }
    }

    /// Moves everything forward that is further in `other`.
    pub fn raise_all(&mut self, other: &Self) {
        self.cursor.raise_all(&other.cursor);
        other.replays.iter().for_each(|moved| self.raise_replay(moved));
    }
}

/// Input of [`super::Engine::replay`].
#[derive(Debug, Clone)]
pub struct ReplayRequest<'a> {
    /// The session for which is read.
    pub session: &'a SessionId,
    /// Under which attachment.
    pub epoch: Epoch,
    /// Knowing which subscriptions.
    pub version: Version,
    /// Which channel.
    pub pattern: &'a Pattern,
    /// The subscription's start: the replay's end.
    pub since: Position,
    /// Read past this.
    pub from: Position,
    /// At most so many messages.
    pub max_messages: usize,
    /// At most so many bytes (but at least one message).
    pub max_bytes: usize,
}

/// Outcome of [`super::Engine::replay`].
#[derive(Debug, Clone)]
pub enum Replay {
    /// The next messages, in order. When there are none, and none is missing, the replay is through, and the
    /// subscription says so.
    Chunk {
        /// The messages.
        deliveries: Vec<Arc<Delivery>>,
        /// Nothing comes after them.
        through: bool,
        /// Messages before them are missing: the log was trimmed. Only of a session that can be told of it.
        gap: bool,
    },
    /// Messages are missing, and the session was ended for it: it cannot be told otherwise.
    Gap(EndedSession),
    /// The subscriptions changed since.
    Outdated,
    /// Another attachment holds the session.
    Stale,
    /// There is no such session.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_subscription_never_moves_a_newer_ones_replay() {
        let pattern = Pattern::parse("/a").expect("valid");
        let moved = |since, upto| Replayed { pattern: pattern.clone(), since: Position(since), upto: Position(upto) };
        let mut reach = Reach::default();
        reach.raise_replay(&moved(10, 5));
        reach.raise_replay(&moved(10, 3));
        assert_eq!(reach.replayed(&pattern, Position(10)), Some(Position(5)));
        reach.raise_replay(&moved(20, 2));
        reach.raise_replay(&moved(10, 9));
        assert_eq!(reach.replays, [moved(20, 2)]);
    }
}
