//! Fingerprints of what was published lately, in two generations: bounded in time and number.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::bayeux::Fingerprint;

/// What was seen within the window, and maybe a while longer.
pub(super) struct Seen {
    window: Duration,
    /// Of one generation.
    max: usize,
    young: HashSet<Fingerprint>,
    old: HashSet<Fingerprint>,
    since: Instant,
}

impl Seen {
    pub(super) fn new(window: Duration, max: usize) -> Self {
        Self { window, max, young: HashSet::new(), old: HashSet::new(), since: Instant::now() }
    }

    /// Whether it was seen before; from now on it was.
    pub(super) fn again(&mut self, fingerprint: Fingerprint) -> bool {
        if self.window.is_zero() {
            return false;
        }
        let age = self.since.elapsed();
        if age >= self.window || self.young.len() >= self.max {
            let young = std::mem::take(&mut self.young);
            // Nothing was seen for long: what there is belongs to no generation any more.
            self.old = if age >= self.window * 2 { HashSet::new() } else { young };
            self.since = Instant::now();
        }
        self.old.contains(&fingerprint) || !self.young.insert(fingerprint)
    }
}
