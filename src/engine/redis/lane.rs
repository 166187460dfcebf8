//! A lane: one pipelined connection for commands, replaced when it breaks. The pool makes the connections, and a lane
//! keeps one for as long as it works: taking one from the pool for each command would cost a second round trip and
//! never pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use deadpool_redis::{Connection, Pool};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};
use tokio::time::Instant;

use super::scripts::Script;
use super::shared::{Shared, engine_error, is_fatal};
use crate::engine::EngineError;

/// The longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// One pipelined connection.
pub(super) struct Lane {
    shared: Arc<Shared>,
    pool: Pool,
    live: Mutex<Option<Live>>,
    /// Held while connecting: one attempt at a time, and the others wait for its outcome.
    connecting: tokio::sync::Mutex<Attempts>,
    /// Counts connections, so that a late failure does not throw away the next one.
    count: AtomicU32,
}

struct Live {
    number: u32,
    connection: Connection,
}

#[derive(Default)]
struct Attempts {
    failed: u32,
    /// No attempt before, and why.
    pause: Option<(Instant, EngineError)>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, pool: Pool) -> Self {
        let (live, connecting) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { shared, pool, live, connecting, count: AtomicU32::new(0) }
    }

    /// Runs a script.
    ///
    /// # Errors
    /// The outcome is unknown, except for [`EngineError::OutOfMemory`].
    pub(super) async fn run(&self, script: &Script, arguments: impl FnOnce(&mut Cmd)) -> Result<Value, EngineError> {
        let mut command = self.shared.invocation(script);
        arguments(&mut command);
        let (number, mut connection) = self.connection().await?;
        let outcome = self.shared.run(&mut connection, script, &command).await;
        self.judge(number, outcome)
    }

    /// Runs a plain command.
    ///
    /// # Errors
    /// As [`Lane::run`].
    pub(super) async fn ask(&self, command: &Cmd) -> Result<Value, EngineError> {
        let (number, mut connection) = self.connection().await?;
        let outcome = command.query_async(&mut connection).await;
        self.judge(number, outcome)
    }

    fn judge(&self, number: u32, outcome: Result<Value, RedisError>) -> Result<Value, EngineError> {
        outcome.map_err(|error| {
            if is_fatal(&error) {
                self.discard(number);
            }
            engine_error(&error)
        })
    }

    fn discard(&self, number: u32) {
        let mut live = self.live.lock();
        if live.as_ref().is_some_and(|live| live.number == number)
            && let Some(broken) = live.take()
        {
            // Not back into the pool.
            drop(Connection::take(broken.connection));
        }
    }

    fn live(&self) -> Option<(u32, MultiplexedConnection)> {
        self.live.lock().as_ref().map(|live| (live.number, MultiplexedConnection::clone(&live.connection)))
    }

    async fn connection(&self) -> Result<(u32, MultiplexedConnection), EngineError> {
        if let Some(live) = self.live() {
            return Ok(live);
        }
        let mut attempts = self.connecting.lock().await;
        if let Some(live) = self.live() {
            return Ok(live);
        }
        if let Some((until, why)) = &attempts.pause
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                *attempts = Attempts::default();
                let number = self.count.fetch_add(1, Ordering::Relaxed);
                let clone = MultiplexedConnection::clone(&connection);
                *self.live.lock() = Some(Live { number, connection });
                Ok((number, clone))
            }
            Err(error) => {
                attempts.pause = Some((Instant::now() + pause(attempts.failed), error.clone()));
                attempts.failed = attempts.failed.saturating_add(1);
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<Connection, EngineError> {
        let mut connection =
            self.pool.get().await.map_err(|error| EngineError::Unavailable(format!("cannot connect: {error}")))?;
        match self.shared.meet(&mut connection).await {
            Ok(()) => Ok(connection),
            Err(error) => {
                drop(Connection::take(connection));
                Err(engine_error(&error))
            }
        }
    }
}

/// How long to wait after so many failures: longer and longer, and never all nodes at once.
pub(super) fn pause(failed: u32) -> Duration {
    let longest = Duration::from_millis(50 << failed.min(5)).min(MAX_PAUSE);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}
