//! Which ping of a connection stands for which positions, and when the next one is due. Driven by `connection.rs`.

use std::time::Duration;

use tokio::time::Instant;

use crate::engine::Reach;

/// What was sent is pinged after this time, so that a burst costs one ping,
const CONFIRM_AFTER: Duration = Duration::from_millis(250);
/// and up to so much later: those who got the same message must not all ping at the same moment, and delay the next.
const CONFIRM_SPREAD: Duration = Duration::from_millis(250);
/// Pings that confirm are at least so far apart.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);

/// The pings of one connection.
pub(super) struct Pings {
    /// Tokens are decimal counters.
    pub(super) count: u64,
    pub(super) sent_at: Instant,
    /// When the next one is to be sent.
    pub(super) due: Instant,
    /// The ping that is not answered yet, with what its answer confirms.
    pub(super) open: Option<(u64, Reach)>,
    /// Something was sent that no ping covers.
    pub(super) uncovered: bool,
}

impl Pings {
    /// None sent yet; the first is due after `every`.
    pub(super) fn new(now: Instant, every: Duration) -> Self {
        Self { count: 0, sent_at: now, due: now + every, open: None, uncovered: false }
    }

    /// Something was sent: the next ping comes soon, unless one is under way whose answer asks for it then.
    pub(super) fn cover_soon(&mut self) {
        self.uncovered = true;
        if self.open.is_none() {
            let soon = (Instant::now() + CONFIRM_AFTER).max(self.sent_at + CONFIRM_EVERY);
            let soon = soon + CONFIRM_SPREAD.mul_f32(fastrand::f32());
            self.due = self.due.min(soon);
        }
    }
}
