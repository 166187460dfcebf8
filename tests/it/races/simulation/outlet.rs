//! A socket that the hub writes to, in the place of `transport/websocket/outlet.rs`: what it wrote, in order, and whether
//! the kernel takes more.

use parking_lot::Mutex;
use weft::session::{Attachment, Outlet};

use super::*;

/// What leaves a node on one socket.
pub(super) struct Line(Mutex<Out>);

struct Out {
    written: Vec<(u64, Position)>,
    /// In percent, how often the kernel takes nothing.
    stuck: u32,
    random: fastrand::Rng,
}

impl Line {
    pub(super) fn new(stuck: u32, seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Out { written: Vec::new(), stuck, random: fastrand::Rng::with_seed(seed) })))
    }

    /// What was written since the last call, and what `covered` says at that moment.
    pub(super) fn drain<T>(&self, covered: impl FnOnce() -> T) -> (Vec<(u64, Position)>, T) {
        let mut out = self.0.lock();
        let covered = covered();
        (std::mem::take(&mut out.written), covered)
    }
}

impl Outlet for Line {
    fn push(&self, source: &Attachment, _: &mut Vec<u8>) {
        let mut out = self.0.lock();
        let Out { written, stuck, random } = &mut *out;
        if random.u32(0..100) < *stuck {
            return;
        }
        source.take_live(200, |delivery, _| written.push((number(delivery), delivery.position)), |_| ());
    }
}
