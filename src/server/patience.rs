//! Waiting for an engine that is away: whoever has time is kept waiting, as for a message, rather than sent away.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::Server;
use crate::engine::{EngineError, Link, SessionId};
use crate::session::AttachOutcome;

/// The first pause after an engine call failed, and the longest.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How long somebody waits who would otherwise be told at once.
const A_LITTLE: Duration = Duration::from_secs(5);

/// How long somebody still waits.
pub(crate) struct Patience<'a> {
    server: &'a Server,
    deadline: Instant,
    pause: Duration,
}

impl Server {
    /// Patience until `deadline`.
    pub(super) fn patience(&self, deadline: Instant) -> Patience<'_> {
        Patience { server: self, deadline, pause: PAUSE }
    }

    /// Makes a call that may be made twice; waits a little for the engine if it is away. What clients do not try again by
    /// themselves must not fail because one node has found Redis a moment later than another.
    ///
    /// # Errors
    /// Those of the engine, when it is not back in time.
    pub(super) async fn insist<'a, T>(
        &self,
        operation: &'static str,
        call: impl Fn() -> BoxFuture<'a, Result<T, EngineError>> + Send,
    ) -> Result<T, EngineError> {
        let mut patience = self.patience(Instant::now() + A_LITTLE);
        loop {
            match call().await {
                Err(error) if patience.engine_returns(&error).await => self.engine_failed(operation, &error),
                outcome => return outcome,
            }
        }
    }

    /// Attaches a session; waits for the engine until `deadline` if it is away.
    ///
    /// # Errors
    /// Those of the engine, when it is not back in time.
    pub(crate) async fn attach_patiently(
        &self,
        session: &SessionId,
        link: Link<'_>,
        deadline: Instant,
    ) -> Result<AttachOutcome, EngineError> {
        let mut patience = self.patience(deadline);
        loop {
            match self.sessions().attach(session, link).await {
                Err(error) if patience.engine_returns(&error).await => self.engine_failed("attach", &error),
                outcome => return outcome,
            }
        }
    }
}

impl Patience<'_> {
    /// Waits for the engine; false when it is not away, is not back before the deadline, or the node stops.
    pub(super) async fn engine_returns(&mut self, error: &EngineError) -> bool {
        if matches!(error, EngineError::Full(_) | EngineError::OutOfMemory) {
            return false;
        }
        // It may be there and fail all the same: longer and longer, and never all at once.
        let pause = Instant::now() + self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        if pause >= self.deadline {
            return false;
        }
        let sessions = self.server.sessions();
        let back = async {
            tokio::time::sleep_until(pause).await;
            tokio::time::timeout_at(self.deadline, sessions.store().available()).await.is_ok()
        };
        tokio::select! {
            back = back => back,
            () = sessions.stopping().cancelled() => false,
        }
    }
}
