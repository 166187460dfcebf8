//! Messages of one publisher that are under way: at the rate `max` it sends the next one when there is room.
//! Receivers in any thread report what came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// See the module. A message has the slot of its place modulo the number of slots.
#[derive(Debug)]
pub(super) struct InFlight {
    /// The upper half is the place of the message, the lower half how many parts of it are not done.
    slots: Box<[AtomicU64]>,
    freed: Notify,
}

fn packed(place: u64, parts: u32) -> u64 {
    place << 32 | u64::from(parts)
}

impl InFlight {
    pub(super) fn new(slots: u32) -> Self {
        Self { slots: (0..slots).map(|_| AtomicU64::new(0)).collect(), freed: Notify::new() }
    }

    fn slot(&self, place: u64) -> &AtomicU64 {
        &self.slots[(place % self.slots.len() as u64) as usize]
    }

    fn is_free(&self, place: u64) -> bool {
        self.slot(place).load(Ordering::Acquire) & u64::from(u32::MAX) == 0
    }

    /// Waits until there is room for a message. False when `patience` was over first: the one before is given up.
    pub(super) async fn room(&self, place: u64, patience: Duration) -> bool {
        if self.is_free(place) {
            return true;
        }
        let free = async {
            while !self.is_free(place) {
                self.freed.notified().await;
            }
        };
        tokio::time::timeout(patience, free).await.is_ok()
    }

    /// A message is under way; it is done when `parts` parts are.
    pub(super) fn begin(&self, place: u64, parts: u32) {
        self.slot(place).store(packed(place, parts), Ordering::Release);
    }

    /// A part of a message is done.
    pub(super) fn done(&self, place: u64) {
        self.reduce(place, |parts| parts.saturating_sub(1));
    }

    /// Nothing more is expected of a message.
    pub(super) fn cancel(&self, place: u64) {
        self.reduce(place, |_| 0);
    }

    fn reduce(&self, place: u64, change: impl Fn(u32) -> u32) {
        let slot = self.slot(place);
        let updated = slot.fetch_update(Ordering::AcqRel, Ordering::Acquire, |value| {
            // The slot may have been given to another message.
            (value >> 32 == place & u64::from(u32::MAX) && value as u32 != 0)
                .then(|| packed(place, change(value as u32)))
        });
        if updated.is_ok_and(|before| change(before as u32) == 0) {
            self.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn room_is_what_is_done() {
        let window = InFlight::new(2);
        let patience = Duration::from_secs(1);
        window.begin(0, 2);
        window.begin(1, 1);
        assert!(!window.room(2, patience).await);
        window.done(0);
        assert!(!window.room(2, patience).await);
        window.done(0);
        assert!(window.room(2, patience).await);
        window.begin(2, 5);
        // Too late: the slot is another's.
        window.done(0);
        window.done(1);
        assert!(window.room(3, patience).await && !window.room(4, patience).await);
        window.cancel(2);
        assert!(window.room(4, patience).await);
    }
}
