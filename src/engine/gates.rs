//! Pause points for tests: a test holds an engine operation before it starts or after it is done, and so forces one
//! interleaving. A node without gates pays one branch per operation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// Where an operation can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before the operation of that name reaches the engine.
    Before(&'static str),
    /// After it happened, before the caller learns so.
    After(&'static str),
}

/// The gates of one node. Clones share them.
#[derive(Clone, Default)]
pub struct Gates(Arc<Inner>);

#[derive(Default)]
struct Inner {
    closed: Mutex<HashMap<Point, Arc<State>>>,
    /// Operations that stand before no gate, and how many have come to their end.
    running: AtomicUsize,
    finished: AtomicUsize,
    crashed: AtomicBool,
    /// Where every operation hesitates for a random while.
    jitter: Option<Mutex<fastrand::Rng>>,
}

struct State {
    arrived: Semaphore,
    open: Semaphore,
}

/// An operation under way.
pub(crate) struct Running(Gates);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.0.finished.fetch_add(1, Ordering::AcqRel);
        self.0.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One closed gate; opens when dropped.
pub struct Gate {
    gates: Gates,
    point: Point,
    state: Arc<State>,
}

impl Gates {
    /// Gates at which every operation lets others run first for a random while: for simulations of many interleavings.
    pub fn jittery(seed: u64) -> Self {
        let jitter = Some(Mutex::new(fastrand::Rng::with_seed(seed)));
        Self(Arc::new(Inner { jitter, ..Inner::default() }))
    }

    /// Closes the gate: from now on operations wait there until [`Gate::open`].
    pub fn close(&self, point: Point) -> Gate {
        let state = Arc::new(State { arrived: Semaphore::new(0), open: Semaphore::new(0) });
        self.0.closed.lock().insert(point, state.clone());
        Gate { gates: self.clone(), point, state }
    }

    /// How many operations are under way, but for those that a gate holds, and how many have ended so far.
    pub fn progress(&self) -> (usize, usize) {
        (self.0.running.load(Ordering::Acquire), self.0.finished.load(Ordering::Acquire))
    }

    /// Counts an operation as under way until the result is dropped.
    pub(crate) fn running(&self) -> Running {
        self.0.running.fetch_add(1, Ordering::AcqRel);
        Running(self.clone())
    }

    /// No operation passes any more: the node has crashed.
    pub fn crash(&self) {
        self.0.crashed.store(true, Ordering::Release);
    }

    /// Waits while the gate is closed.
    pub(crate) async fn pass(&self, point: Point) {
        if let Some(random) = &self.0.jitter {
            let turns = random.lock().u32(0..4);
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        }
        if self.0.crashed.load(Ordering::Acquire) {
            return std::future::pending().await;
        }
        let Some(state) = self.0.closed.lock().get(&point).cloned() else { return };
        state.arrived.add_permits(1);
        // A closed semaphore means an open gate.
        let _ = state.open.acquire().await;
    }
}

impl Gate {
    /// Waits until an operation stands before the gate.
    pub async fn arrived(&self) {
        if let Ok(permit) = self.state.arrived.acquire().await {
            permit.forget();
        }
    }

    /// Lets all through and removes the gate.
    pub fn open(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.gates.0.closed.lock().remove(&self.point);
        self.state.open.close();
    }
}
