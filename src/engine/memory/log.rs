//! The log of one pattern: what was published, oldest first, each entry naming the one before it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::MemoryLimits;
use crate::engine::{Delivery, Position};

/// Exists while the pattern has a subscriber.
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// Position of the newest entry ever appended; where the log began while there is none.
    head: Position,
    /// Bytes of the payloads in `entries`.
    bytes: usize,
    /// Sessions subscribed to the pattern.
    pub(super) subscribers: usize,
}

struct Entry {
    previous: Position,
    delivery: Arc<Delivery>,
}

/// What a log holds past a position.
pub(super) struct Tail<'a> {
    pub(super) deliveries: Box<dyn Iterator<Item = &'a Arc<Delivery>> + 'a>,
    /// Entries past the position were trimmed.
    pub(super) gap: bool,
}

impl Log {
    /// An empty log that begins at `head`.
    pub(super) fn starting_at(head: Position) -> Self {
        Self { entries: VecDeque::new(), head, bytes: 0, subscribers: 0 }
    }

    /// Appends; gives the position of the entry before.
    pub(super) fn append(&mut self, delivery: Arc<Delivery>) -> Position {
        let previous = std::mem::replace(&mut self.head, delivery.position);
        self.bytes += delivery.array.len();
        self.entries.push_back(Entry { previous, delivery });
        previous
    }

    /// Drops the oldest entries beyond the limits or stored before `oldest`; gives the number of bytes freed.
    pub(super) fn trim(&mut self, limits: &MemoryLimits, oldest: Position) -> usize {
        let before = self.bytes;
        while let Some(front) = self.entries.front() {
            let over = self.entries.len() > limits.log_entries || self.bytes > limits.log_bytes;
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
        before - self.bytes
    }

    /// What was stored past `from`.
    pub(super) fn past(&self, from: Position) -> Tail<'_> {
        let start = self.entries.partition_point(|entry| entry.delivery.position <= from);
        let gap = match self.entries.get(start) {
            Some(first) => first.previous > from,
            None => self.head > from,
        };
        Tail { deliveries: Box::new(self.entries.range(start..).map(|entry| &entry.delivery)), gap }
    }

    /// Position of the newest entry ever appended; where the log began while there is none.
    pub(super) fn head(&self) -> Position {
        self.head
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest entry was stored, in milliseconds since 1970.
    pub(super) fn oldest_millis(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.delivery.position.millis())
    }
}
