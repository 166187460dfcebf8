//! Whether a node should get clients, put together from what its parts say: the canary, its limits, its end. The canary
//! and the node tell it; the transports show it.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::transport::Readiness;

/// The readiness of one node.
pub(super) struct Health {
    state: Mutex<State>,
    shown: watch::Sender<Readiness>,
    metrics: Arc<Metrics>,
}

struct State {
    /// What keeps messages from flowing.
    stopped: Option<String>,
    /// Which limit is near: who is here may stay, and nobody new shall come.
    pressed: Option<String>,
    /// What the node is about to do.
    ending: Option<&'static str>,
}

impl Health {
    /// Of a node that starts.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let starting = "starting".to_owned();
        let shown = watch::Sender::new(Readiness::NotReady(starting.clone()));
        let state = State { stopped: Some(starting), pressed: None, ending: None };
        Self { state: Mutex::new(state), shown, metrics }
    }

    /// To look at it.
    pub(super) fn subscribe(&self) -> watch::Receiver<Readiness> {
        self.shown.subscribe()
    }

    /// Messages flow, as far as `pressed` allows.
    pub(super) fn flows(&self, pressed: Option<String>) {
        let mut state = self.state.lock();
        (state.stopped, state.pressed) = (None, pressed);
        self.show(&state);
    }

    /// Messages do not flow.
    pub(super) fn stopped(&self, reason: String) {
        let mut state = self.state.lock();
        state.stopped = Some(reason);
        self.show(&state);
    }

    /// The node ends; nothing makes it ready again.
    pub(super) fn ends(&self, how: &'static str) {
        let mut state = self.state.lock();
        state.ending = Some(how);
        self.show(&state);
    }

    fn show(&self, state: &State) {
        let reason =
            state.ending.map(str::to_owned).or_else(|| state.stopped.clone()).or_else(|| state.pressed.clone());
        let now = reason.map_or(Readiness::Ready, Readiness::NotReady);
        self.metrics.ready.set(i64::from(now == Readiness::Ready));
        self.shown.send_if_modified(|shown| {
            // Once for each reason, not each second.
            let news = *shown != now;
            match &now {
                Readiness::Ready if news => tracing::info!("ready"),
                Readiness::NotReady(reason) if news => tracing::warn!(reason, "not ready"),
                _ => {}
            }
            *shown = now;
            news
        });
    }
}
