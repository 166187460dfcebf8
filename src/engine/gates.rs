//! Pause points for tests: a test holds an engine operation before it starts or after it is done, and so forces one
//! interleaving. A node without gates pays one branch per operation.

use std::collections::HashMap;
use std::sync::Arc;

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
    /// Where every operation hesitates for a random while.
    jitter: Option<Mutex<fastrand::Rng>>,
}

struct State {
    arrived: Semaphore,
    open: Semaphore,
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
        Self(Arc::new(Inner { closed: Mutex::default(), jitter }))
    }

    /// Closes the gate: from now on operations wait there until [`Gate::open`].
    pub fn close(&self, point: Point) -> Gate {
        let state = Arc::new(State { arrived: Semaphore::new(0), open: Semaphore::new(0) });
        self.0.closed.lock().insert(point, state.clone());
        Gate { gates: self.clone(), point, state }
    }

    /// Waits while the gate is closed.
    pub(crate) async fn pass(&self, point: Point) {
        if let Some(random) = &self.0.jitter {
            let turns = random.lock().u32(0..4);
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
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
