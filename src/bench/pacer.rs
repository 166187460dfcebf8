//! The open loop: when each message is due, and a thread that wakes the publisher at these times. The runtime's own
//! timers are whole milliseconds, too coarse for latencies of some ten microseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use super::shared::Shared;

/// Wake-ups are at least so far apart, in microseconds.
const TICK: u64 = 200;
/// How long the thread sleeps before it looks whether it is still wanted, in microseconds.
const LOOK: u64 = 50_000;

/// When the publishers of one thread publish. A turn is a batch of messages of one stream, all due at once.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    /// Microseconds since the epoch.
    start: u64,
    /// Microseconds between two turns of anybody.
    step: f64,
    /// All streams.
    streams: u64,
    /// Those that are published here, rising.
    own: Vec<u32>,
}

impl Schedule {
    pub(super) fn new(start: u64, rate: f64, batch: u32, streams: u32, own: Vec<u32>) -> Self {
        Self { start, step: f64::from(batch) * 1e6 / rate, streams: u64::from(streams), own }
    }

    /// Stream and due time of the turn with this number; `None` when nobody publishes here.
    pub(super) fn turn(&self, number: u64) -> Option<(u32, u64)> {
        let count = self.own.len() as u64;
        let cycle = number.checked_div(count)?;
        let stream = self.own[(number % count) as usize];
        let turn = cycle * self.streams + u64::from(stream);
        Some((stream, self.start + (turn as f64 * self.step) as u64))
    }
}

/// The thread. Ends when dropped.
pub(super) struct Pacer {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    bell: Arc<Notify>,
}

impl Pacer {
    /// Starts it.
    pub(super) fn start(shared: Arc<Shared>, schedule: Schedule) -> std::io::Result<Self> {
        let (ended, bell) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
        let thread = std::thread::Builder::new().name("weft-pacer".into()).spawn({
            let (ended, bell) = (ended.clone(), bell.clone());
            move || pace(&shared, &schedule, &ended, &bell)
        })?;
        Ok(Self { ended, thread: Some(thread), bell })
    }

    /// Waits for the next wake-up.
    pub(super) async fn rings(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It does not panic; and if it did, there is nothing left to do.
            let _ = thread.join();
        }
    }
}

fn pace(shared: &Shared, schedule: &Schedule, ended: &AtomicBool, bell: &Notify) {
    sharpen();
    let (mut number, mut last) = (0, 0);
    while !ended.load(Ordering::Relaxed) {
        let Some((_, due)) = schedule.turn(number) else { return };
        let (now, at) = (shared.now(), due.max(last + TICK));
        if at > now {
            std::thread::sleep(Duration::from_micros((at - now).min(LOOK)));
            continue;
        }
        bell.notify_one();
        last = now;
        while schedule.turn(number).is_some_and(|(_, due)| due <= now) {
            number += 1;
        }
    }
}

/// Asks the kernel not to make this thread's sleeps longer so as to save energy. Without that they are 50 µs late.
fn sharpen() {
    // Best effort: what it was late is in the report.
    if let Ok(link) = std::fs::read_link("/proc/thread-self")
        && let Some(thread) = link.file_name()
    {
        let _ = std::fs::write(std::path::Path::new("/proc").join(thread).join("timerslack_ns"), "1000");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round_and_are_shared_by_threads() {
        let one = Schedule::new(1000, 1000.0, 1, 4, vec![0, 2]);
        let other = Schedule::new(1000, 1000.0, 1, 4, vec![1, 3]);
        let turns = |schedule: &Schedule| (0..4).filter_map(|n| schedule.turn(n)).collect::<Vec<_>>();
        assert_eq!(turns(&one), [(0, 1000), (2, 3000), (0, 5000), (2, 7000)]);
        assert_eq!(turns(&other), [(1, 2000), (3, 4000), (1, 6000), (3, 8000)]);
        assert_eq!(Schedule::new(0, 1.0, 1, 1, Vec::new()).turn(0), None);
    }

    #[test]
    fn a_batch_is_due_at_once() {
        let schedule = Schedule::new(0, 1000.0, 10, 1, vec![0]);
        assert_eq!(schedule.turn(3), Some((0, 30_000)));
    }
}
