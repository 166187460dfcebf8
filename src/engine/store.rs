//! The engine in use, as the rest of the server sees it: every call has a deadline, and tests can pause every call.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use super::gates::{Gates, Point};
use super::memory::MemoryNode;
#[cfg(feature = "redis")]
use super::redis::RedisNode;
use super::*;

/// A node's connection to its engine.
pub struct Store {
    backend: Backend,
    deadline: Duration,
    gates: Option<Gates>,
}

/// The engines that exist. An enum rather than a type parameter keeps the layers above free of generics.
enum Backend {
    Memory(MemoryNode),
    #[cfg(feature = "redis")]
    Redis(RedisNode),
}

/// Calls the backend's method of that name under the deadline and between its gates.
macro_rules! call {
    ($self:ident . $operation:ident ( $($argument:expr),* )) => {
        // Boxed before anything is put around it: each layer would have room for it again, and copy it there; and callers
        // should not carry that while they wait for something else.
        match &$self.backend {
            Backend::Memory(engine) => {
                $self.guard(stringify!($operation), Box::pin(engine.$operation($($argument),*))).await
            }
            #[cfg(feature = "redis")]
            Backend::Redis(engine) => {
                $self.guard(stringify!($operation), Box::pin(engine.$operation($($argument),*))).await
            }
        }
    };
}

impl Store {
    /// A store on the memory engine. `deadline` bounds every call.
    pub fn memory(engine: MemoryNode, deadline: Duration) -> Self {
        Self { backend: Backend::Memory(engine), deadline, gates: None }
    }

    /// A store on Redis. `deadline` bounds every call; it should be longer than what a command may take.
    #[cfg(feature = "redis")]
    pub fn redis(engine: RedisNode, deadline: Duration) -> Self {
        Self { backend: Backend::Redis(engine), deadline, gates: None }
    }

    /// Waits until the engine can be used.
    pub async fn available(&self) {
        match &self.backend {
            Backend::Memory(_) => {}
            #[cfg(feature = "redis")]
            Backend::Redis(engine) => engine.available().await,
        }
    }

    /// The feed has not brought what it should have.
    pub fn doubt_feed(&self) {
        match &self.backend {
            Backend::Memory(_) => {}
            #[cfg(feature = "redis")]
            Backend::Redis(engine) => engine.doubt_feed(),
        }
    }

    /// With pause points, for tests.
    pub fn with_gates(self, gates: Gates) -> Self {
        Self { gates: Some(gates), ..self }
    }

    /// The engine's name, for people.
    pub fn name(&self) -> &'static str {
        match self.backend {
            Backend::Memory(_) => "memory",
            #[cfg(feature = "redis")]
            Backend::Redis(_) => "redis",
        }
    }

    /// As [`Engine::publish`] for each, in this order: of two that are stored the earlier one has the lower position. All
    /// share one deadline, and each has an outcome of its own: what was stored before one that is late is known to be
    /// stored.
    pub async fn publish_all(&self, publications: Vec<Publication>) -> Vec<Result<Published, EngineError>> {
        let late = || Err(EngineError::Timeout(self.deadline));
        let until = Instant::now() + self.deadline;
        let many = publications.len();
        let mut outcomes = Vec::with_capacity(many);
        match &self.backend {
            Backend::Memory(_) => {
                for publication in publications {
                    let outcome = tokio::time::timeout_at(until, self.publish(publication)).await;
                    outcomes.push(outcome.unwrap_or_else(|_| late()));
                }
            }
            #[cfg(feature = "redis")]
            Backend::Redis(engine) => {
                let handed_in = self.guard("publish_all", async { Ok(engine.hand_in(publications).await) }).await;
                let Ok(waiting) = handed_in else { return (0..many).map(|_| late()).collect() };
                // One timer for all, set once.
                let mut time_out = std::pin::pin!(tokio::time::sleep_until(until));
                for outcome in waiting {
                    outcomes.push(tokio::select! {
                        biased;
                        outcome = outcome => outcome,
                        () = &mut time_out => late(),
                    });
                }
            }
        }
        outcomes
    }

    async fn guard<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let call = call.instrument(tracing::debug_span!("engine", operation));
        let Some(gates) = &self.gates else { return self.timed(call).await };
        gates.pass(Point::Before(operation)).await;
        let running = gates.running();
        let outcome = self.timed(call).await;
        drop(running);
        gates.pass(Point::After(operation)).await;
        outcome
    }

    async fn timed<T>(&self, call: impl Future<Output = Result<T, EngineError>>) -> Result<T, EngineError> {
        tokio::time::timeout(self.deadline, call).await.unwrap_or(Err(EngineError::Timeout(self.deadline)))
    }
}

impl Engine for Store {
    async fn create(&self, creation: Creation<'_>) -> Result<Create, EngineError> {
        call!(self.create(creation))
    }

    async fn touch(&self, session: &SessionId, epoch: Option<Epoch>) -> Result<Touch, EngineError> {
        call!(self.touch(session, epoch))
    }

    async fn heartbeat(&self, session: &SessionId, claim: Option<&Cursor>) -> Result<Touch, EngineError> {
        call!(self.heartbeat(session, claim))
    }

    async fn end(&self, session: &SessionId, why: Ended) -> Result<Option<EndedSession>, EngineError> {
        call!(self.end(session, why))
    }

    async fn note_activity(&self, session: &SessionId) -> Result<(), EngineError> {
        call!(self.note_activity(session))
    }

    async fn end_inactive(&self, session: &SessionId, limit: Duration) -> Result<Option<EndedSession>, EngineError> {
        call!(self.end_inactive(session, limit))
    }

    async fn subscribe(
        &self,
        session: &SessionId,
        pattern: &Pattern,
        max: usize,
        replay: Option<ReplayWish>,
    ) -> Result<Subscribe, EngineError> {
        call!(self.subscribe(session, pattern, max, replay))
    }

    async fn unsubscribe(&self, session: &SessionId, pattern: &Pattern) -> Result<Unsubscribe, EngineError> {
        call!(self.unsubscribe(session, pattern))
    }

    async fn attach(&self, request: AttachRequest<'_>) -> Result<Attach, EngineError> {
        call!(self.attach(request))
    }

    async fn subscriptions(&self, session: &SessionId, epoch: Epoch) -> Result<Subscriptions, EngineError> {
        call!(self.subscriptions(session, epoch))
    }

    async fn record(&self, request: RecordRequest<'_>) -> Result<Record, EngineError> {
        call!(self.record(request))
    }

    async fn conclude(
        &self,
        session: &SessionId,
        epoch: Epoch,
        connect_id: Option<&str>,
        vain: bool,
    ) -> Result<Conclude, EngineError> {
        call!(self.conclude(session, epoch, connect_id, vain))
    }

    async fn release(&self, session: &SessionId, epoch: Epoch, connect_id: Option<&str>) -> Result<(), EngineError> {
        call!(self.release(session, epoch, connect_id))
    }

    async fn written(&self, session: &SessionId, epoch: Epoch) -> Result<(), EngineError> {
        call!(self.written(session, epoch))
    }

    async fn commit(&self, items: &[Commit]) -> Result<Vec<CommitOutcome>, EngineError> {
        call!(self.commit(items))
    }

    async fn detach(&self, item: &Commit) -> Result<(), EngineError> {
        call!(self.detach(item))
    }

    async fn publish(&self, publication: Publication) -> Result<Published, EngineError> {
        call!(self.publish(publication))
    }

    async fn read(&self, request: ReadRequest<'_>) -> Result<Read, EngineError> {
        call!(self.read(request))
    }

    async fn replay(&self, request: ReplayRequest<'_>) -> Result<Replay, EngineError> {
        call!(self.replay(request))
    }

    async fn listen(&self, logs: &[Pattern]) -> Result<(), EngineError> {
        call!(self.listen(logs))
    }

    async fn unlisten(&self, logs: &[Pattern]) -> Result<(), EngineError> {
        call!(self.unlisten(logs))
    }

    async fn sweep(&self, limit: usize) -> Result<Vec<EndedSession>, EngineError> {
        call!(self.sweep(limit))
    }

    async fn sessions(&self) -> Result<usize, EngineError> {
        call!(self.sessions())
    }
}
