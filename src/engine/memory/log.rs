//! The log of one pattern: what was published, oldest first, each entry naming the one before it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::MemoryLimits;
use crate::engine::{Delivery, Position, Retention};

/// Exists while the pattern has a subscriber, is retained, or may be resumed.
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// Position of the newest entry ever appended; where the log began while there is none.
    head: Position,
    /// Bytes of the payloads in `entries`.
    bytes: usize,
    /// Sessions subscribed to the pattern.
    pub(super) subscribers: usize,
    /// What is kept of it whatever the subscribers.
    pub(super) retention: Option<Retention>,
    /// Its last subscriber may come back; in milliseconds since 1970.
    pub(super) lingers_until: Option<u64>,
}

struct Entry {
    previous: Position,
    delivery: Arc<Delivery>,
}

/// What a log holds past a position.
pub(super) struct Tail<'a> {
    pub(super) deliveries: Box<dyn Iterator<Item = &'a Arc<Delivery>> + 'a>,
    /// Past here nothing was trimmed.
    pub(super) whole_past: Position,
    /// Entries past the position were trimmed.
    pub(super) gap: bool,
}

impl Log {
    /// An empty log that begins at `head`.
    pub(super) fn starting_at(head: Position) -> Self {
        Self { entries: VecDeque::new(), head, bytes: 0, subscribers: 0, retention: None, lingers_until: None }
    }

    /// Appends; gives the position of the entry before.
    pub(super) fn append(&mut self, delivery: Arc<Delivery>) -> Position {
        let previous = std::mem::replace(&mut self.head, delivery.position);
        self.bytes += delivery.array.len();
        self.entries.push_back(Entry { previous, delivery });
        previous
    }

    /// Entries that are kept, and for how many milliseconds each.
    fn keeps(&self, limits: &MemoryLimits) -> (usize, u64) {
        let read = self.subscribers > 0 || self.lingers_until.is_some();
        let (entries, age) = if read { (limits.log_entries, limits.log_age) } else { Default::default() };
        let (entries, age) = match self.retention {
            // What is retained, and what its subscribers may still need: a replay under way must not be overtaken.
            Some(kept) => (entries + kept.length, age + kept.age),
            None => (entries, age),
        };
        (entries, age.as_millis() as u64)
    }

    /// Drops the oldest entries beyond the limits.
    pub(super) fn trim(&mut self, limits: &MemoryLimits, now: u64) {
        if self.lingers_until.is_some_and(|until| until <= now) {
            self.lingers_until = None;
        }
        let (entries, age) = self.keeps(limits);
        let oldest = Position::at_millis(now.saturating_sub(age));
        while let Some(front) = self.entries.front() {
            let over = self.entries.len() > entries || self.bytes > limits.log_bytes;
            if !over && front.delivery.position >= oldest {
                break;
            }
            self.bytes -= front.delivery.array.len();
            self.entries.pop_front();
        }
        // A burst must not keep its memory for ever.
        if self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// When it has to be trimmed, in milliseconds since 1970, if ever.
    pub(super) fn due(&self, limits: &MemoryLimits) -> Option<u64> {
        let (_, age) = self.keeps(limits);
        let oldest = self.entries.front().map(|entry| entry.delivery.position.millis() + age);
        match (oldest, self.lingers_until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Whether it has to exist.
    pub(super) fn is_wanted(&self) -> bool {
        self.subscribers > 0 || self.lingers_until.is_some() || (self.retention.is_some() && !self.entries.is_empty())
    }

    /// What was stored past `from`.
    pub(super) fn past(&self, from: Position) -> Tail<'_> {
        let start = self.entries.partition_point(|entry| entry.delivery.position <= from);
        let before = self.entries.get(start).map_or(self.head, |first| first.previous);
        let deliveries = Box::new(self.entries.range(start..).map(|entry| &entry.delivery));
        Tail { deliveries, whole_past: before.max(from), gap: before > from }
    }

    /// The position past which everything lies that is kept.
    pub(super) fn kept_past(&self, kept: Retention, now: u64) -> Position {
        let oldest = Position::at_millis(now.saturating_sub(kept.age.as_millis() as u64));
        let spare = self.entries.len().checked_sub(kept.length + 1);
        let before_newest = spare.and_then(|index| self.entries.get(index)).map(|entry| entry.delivery.position);
        Position(oldest.0.saturating_sub(1)).max(before_newest.unwrap_or_default())
    }

    /// Position of the newest entry ever appended; where the log began while there is none.
    pub(super) fn head(&self) -> Position {
        self.head
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
