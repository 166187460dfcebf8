//! Messages that came when nobody of this node wanted their log: an attach under way may be about to. Kept by the hub.
//!
//! Not the messages are kept, only that there was one: who joins the log later than that has to read it.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::bayeux::Pattern;

/// Logs share that many places. Two that share one may cost a read of the logs, nothing else.
const PLACES: usize = 1024;

pub(super) struct Strays {
    count: AtomicU64,
    /// The count at the last one of the logs of each place.
    last: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Strays {
    fn default() -> Self {
        let last = std::iter::repeat_with(AtomicU64::default).take(PLACES).collect();
        Self { count: AtomicU64::new(0), last, hasher: RandomState::new() }
    }
}

impl Strays {
    /// How many there were so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The count at the last one of this log, or at a later one of another.
    pub(super) fn last(&self, pattern: &Pattern) -> u64 {
        self.place(pattern).load(Ordering::Acquire)
    }

    /// There was one.
    pub(super) fn note(&self, pattern: &Pattern) {
        let stray = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        self.place(pattern).fetch_max(stray, Ordering::AcqRel);
    }

    fn place(&self, pattern: &Pattern) -> &AtomicU64 {
        // The remainder is below the number of places.
        &self.last[(self.hasher.hash_one(pattern) as usize) % PLACES]
    }
}
