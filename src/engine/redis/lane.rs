//! A lane: one pipelined connection for commands, replaced when it breaks. Its pool makes and tests connections, and the
//! lane keeps one for as long as it works: taking one from the pool for each command would cost a second round trip and
//! never pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ConnectionInfo, PushInfo, PushKind, RedisError, Value};
use tokio::time::Instant;

use super::scripts::Script;
use super::settings::RedisSettingsError;
use super::shared::{Shared, engine_error, is_fatal};
use crate::engine::EngineError;
use crate::metrics::RedisLink;

/// Commands that may wait on one connection; callers wait for a place.
const PIPELINE: usize = 1024;
/// The longest pause between two attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// One pipelined connection.
pub(super) struct Lane {
    shared: Arc<Shared>,
    pool: Pool,
    live: Mutex<Option<Live>>,
    /// Redis has closed the connection, as far as is known: the next command must not be the one to find out.
    closed: Arc<AtomicBool>,
    /// Held while connecting: one attempt at a time, and the others wait for its outcome.
    connecting: tokio::sync::Mutex<Attempts>,
    /// Counts connections, so that a late failure does not throw away the next one.
    count: AtomicU32,
}

struct Live {
    number: u32,
    /// Of the server at the other end.
    generation: u64,
    connection: Connection,
}

#[derive(Default)]
struct Attempts {
    failed: u32,
    /// No attempt before, and why.
    pause: Option<(Instant, EngineError)>,
}

impl Lane {
    pub(super) fn new(shared: Arc<Shared>, info: &ConnectionInfo) -> Result<Self, RedisSettingsError> {
        let failed = |error: &dyn std::fmt::Display| RedisSettingsError::Client(error.to_string());
        let settings = &shared.settings;
        let closed = Arc::new(AtomicBool::new(false));
        let notice = closed.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.command_timeout))
            .set_pipeline_buffer_size(PIPELINE)
            .set_push_sender(move |push: PushInfo| -> Result<(), ()> {
                notice.fetch_or(push.kind == PushKind::Disconnection, Ordering::AcqRel);
                Ok(())
            });
        let manager = Manager::new_with_config(info.clone(), config).map_err(|error| failed(&error))?;
        let pool = Pool::builder(manager)
            .max_size(1)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(settings.connect_timeout))
            .create_timeout(Some(settings.connect_timeout))
            .recycle_timeout(Some(settings.connect_timeout))
            .build()
            .map_err(|error| failed(&error))?;
        let (live, connecting) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self { shared, pool, live, closed, connecting, count: AtomicU32::new(0) })
    }

    /// Makes sure that there is a connection.
    ///
    /// # Errors
    /// When there cannot be one now; nothing was done.
    pub(super) async fn ready(&self) -> Result<(), EngineError> {
        self.connection().await.map(|_| ())
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
        let mut live = self.live.lock();
        let closed = self.closed.swap(false, Ordering::AcqRel);
        let elsewhere = live.as_ref().is_some_and(|live| live.generation != self.shared.generation());
        if (closed || elsewhere)
            && let Some(useless) = live.take()
        {
            drop(Connection::take(useless.connection));
        }
        live.as_ref().map(|live| (live.number, MultiplexedConnection::clone(&live.connection)))
    }

    async fn connection(&self) -> Result<(u32, MultiplexedConnection), EngineError> {
        match self.live() {
            Some(live) => Ok(live),
            // Boxed: connecting takes 7 KiB of room, which every call would carry with it, and copy several times.
            None => Box::pin(self.connect_anew()).await,
        }
    }

    async fn connect_anew(&self) -> Result<(u32, MultiplexedConnection), EngineError> {
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
            Ok((connection, generation)) => {
                *attempts = Attempts::default();
                let number = self.count.fetch_add(1, Ordering::Relaxed);
                if number > 0 {
                    self.shared.metrics.reconnected(RedisLink::Commands);
                }
                let clone = MultiplexedConnection::clone(&connection);
                *self.live.lock() = Some(Live { number, generation, connection });
                Ok((number, clone))
            }
            Err(error) => {
                attempts.pause = Some((Instant::now() + pause(attempts.failed), error.clone()));
                attempts.failed = attempts.failed.saturating_add(1);
                Err(error)
            }
        }
    }

    async fn connect(&self) -> Result<(Connection, u64), EngineError> {
        let mut connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => EngineError::Unavailable(format!("cannot connect: {error}")),
            error => EngineError::Unavailable(format!("cannot connect: {error}")),
        })?;
        match self.shared.meet(&mut connection).await {
            Ok(generation) => Ok((connection, generation)),
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
