//! A running node: wires the layers together, and starts and stops them. An embedding program begins here.

mod canary;
mod config;
mod delivery_config;
mod health;
mod keys;
mod layers;
mod limits_config;
mod log_config;
mod pressure;
mod redis_config;
mod written;

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::health::Health;
use self::pressure::Pressure;
use crate::engine::gates::Gates;
use crate::engine::memory::MemoryEngine;
#[cfg(feature = "redis")]
use crate::engine::redis::RedisNode;
use crate::engine::{NodeId, Store};
use crate::hub::{ControlSink, Hub};
use crate::listen::{self, Doors, Listener, NodeService};
use crate::metrics::Metrics;
use crate::server::{Extension, LocalClient, LocalError, Server, ServerEvent, Service, ServiceError, echo};
use crate::session::{COMMIT_EVERY, Sessions};
use crate::transport::{LogHandle, NodeFacts, Readiness, Web, internal_routes, routes};

pub use config::{Config, ConfigError, EngineKind};
pub use delivery_config::{RetentionConfig, ServicesConfig};
pub use layers::Overrides;
pub use limits_config::Limits;
pub use log_config::{LogFormat, LogSettings};
pub use redis_config::RedisConfig;

/// Deadline of every engine call.
const ENGINE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a log stays on the feed after its last local subscriber left: polls come and go.
const FEED_LINGER: Duration = Duration::from_secs(30);
/// How often sessions are swept and the feed is tidied.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Sessions whose progress one node writes in a second, and the longest pause that this may take.
const COMMITS_A_SECOND: f64 = 5000.0;
const LONGEST_COMMIT_PAUSE: Duration = Duration::from_secs(10);
/// After the last connection of a stopping node: how long its progress may take, and that with the end of its own tasks.
const LAST_PROGRESS: Duration = Duration::from_secs(4);
const LAST_TASKS: Duration = Duration::from_secs(5);
/// Sessions and logs that one round of housekeeping handles.
const SWEEP_LIMIT: usize = 1000;
/// Connections of the internal listener.
const INTERNAL_CONNECTIONS: usize = 256;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be bound.
    #[error("cannot listen on {address} (`{key}`)")]
    Bind {
        /// The setting.
        key: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The Redis engine cannot be set up.
    #[cfg(feature = "redis")]
    #[error(transparent)]
    Redis(#[from] crate::engine::redis::RedisSettingsError),
    /// A service cannot be added.
    #[error("service `{channels}`: {error}")]
    Service {
        /// Where it was to answer.
        channels: String,
        /// Why.
        error: ServiceError,
    },
    /// Metrics cannot be registered.
    #[error("cannot set up metrics: {0}")]
    Metrics(String),
}

/// Answers which node it is: a client on a socket has no other way to know.
const NODE_SERVICE: &str = "/service/node";

/// Collects what a node is to be started with.
pub struct NodeBuilder {
    config: Config,
    extensions: Vec<Arc<dyn Extension>>,
    services: Vec<(String, Arc<dyn Service>)>,
    engine: Option<MemoryEngine>,
    gates: Option<Gates>,
    log: Option<LogHandle>,
    embedded: bool,
}

/// A running node. [`Node::stop`] ends it in order; dropping it ends it at once.
pub struct Node {
    server: Server,
    service: NodeService,
    id: NodeId,
    public: SocketAddr,
    internal: SocketAddr,
    health: Arc<Health>,
    drain_grace: Duration,
    /// `None` where there is no other node to go to.
    drain_timeout: Option<Duration>,
    stop_timeout: Duration,
    doors: Doors,
    /// Stops transports.
    stop: CancellationToken,
    /// Stops what the transports need to end: feed, housekeeping.
    halt: CancellationToken,
    /// Connections, sockets, streams, in-process clients.
    front: TaskTracker,
    /// Feed and housekeeping.
    back: TaskTracker,
}

impl NodeBuilder {
    /// Adds an extension behind those that are there.
    #[must_use]
    pub fn extension(mut self, extension: impl Extension) -> Self {
        self.extensions.push(Arc::new(extension));
        self
    }

    /// Adds a service: what clients publish to `channels` (a channel or pattern below `/service`) goes to it alone, and
    /// what it gives is answered. CometD's clients know that as remote calls: `cometd.remoteCall('double', 21, callback)`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let double = |call: weft::Call| async move {
    ///     let number: i64 = serde_json::from_str(call.data.get()).map_err(|_| "400:data:Not a number")?;
    ///     serde_json::value::to_raw_value(&(2 * number)).map_err(|error| error.to_string())
    /// };
    /// let node = weft::Node::builder(weft::Config::default()).service("/service/double", double).start().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn service(mut self, channels: &str, service: impl Service) -> Self {
        self.services.push((channels.to_owned(), Arc::new(service)));
        self
    }

    /// Without a public listener of its own: clients come through [`Node::service`], in the server of this program. The
    /// internal listener stays.
    #[must_use]
    pub fn embedded(mut self) -> Self {
        self.embedded = true;
        self
    }

    /// Shares an engine with other nodes of this process.
    #[must_use]
    pub fn memory_engine(mut self, engine: MemoryEngine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Lets operators turn this log up and down, by `PUT /log/level` on the internal listener.
    #[must_use]
    pub fn log(mut self, log: LogHandle) -> Self {
        self.log = Some(log);
        self
    }

    /// Pause points at every engine call, for tests.
    #[must_use]
    pub fn gates(mut self, gates: Gates) -> Self {
        self.gates = Some(gates);
        self
    }

    /// Starts the node: returns when it serves.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn start(self) -> Result<Node, NodeError> {
        let Self { config, extensions, services, engine, gates, log, embedded } = self;
        config.check()?;
        let bind = |key, address| Listener::bind(address).map_err(|source| NodeError::Bind { key, address, source });
        let public = if embedded { None } else { Some(bind("listen", config.listen)?) };
        let internal = bind("internal_listen", config.internal_listen)?;
        let metrics = Arc::new(Metrics::new().map_err(|error| NodeError::Metrics(error.to_string()))?);

        let id = NodeId::random();
        let (stop, halt) = (CancellationToken::new(), CancellationToken::new());
        let doors = Doors::default();
        let (front, back) = (TaskTracker::new(), TaskTracker::new());
        let alone = config.engine() == EngineKind::Memory && engine.is_none();
        let (store, feed) = match (config.engine(), engine) {
            #[cfg(feature = "redis")]
            (EngineKind::Redis, None) => {
                let (redis, feed, tasks) = RedisNode::new(id.clone(), config.redis_settings(), metrics.clone())?;
                spawn(&back, &halt, tasks.run());
                (Store::redis(redis, ENGINE_DEADLINE), feed)
            }
            (_, engine) => {
                let engine = engine.unwrap_or_else(|| MemoryEngine::new(config.memory_limits()));
                let (memory, feed) = engine.connect(id.clone());
                (Store::memory(memory, ENGINE_DEADLINE), feed)
            }
        };
        let store = Arc::new(match gates {
            Some(gates) => store.with_gates(gates),
            None => store,
        });

        metrics.describe(store.name());
        metrics.connections_limit.set(i64::try_from(config.limits.connections).unwrap_or(i64::MAX));
        let hub = Arc::new(Hub::new(store.clone(), FEED_LINGER, metrics.clone()));
        let sessions =
            Sessions::new(store.clone(), hub.clone(), config.outbox_limits(), metrics.clone(), front.clone());
        let server = Server::new(sessions.clone(), config.server_settings(), metrics.clone());
        for extension in extensions {
            server.add_extension(extension);
        }
        for (channels, service) in services {
            let failed = |error| NodeError::Service { channels: channels.clone(), error };
            server.add_service(&channels, service).map_err(failed)?;
        }
        if config.page {
            let name = serde_json::value::to_raw_value(&serde_json::json!({ "node": id.as_str() }));
            let name = name.map_err(|error| error.to_string());
            let answer = move |_call| ready(name.clone());
            // A program that has a service of this name means its own.
            let _ = server.add_service(NODE_SERVICE, Arc::new(answer));
        }
        if !config.services.echo.is_empty() {
            let failed = |error| NodeError::Service { channels: config.services.echo.clone(), error };
            server.add_service(&config.services.echo, Arc::new(echo)).map_err(failed)?;
        }

        let controls: Arc<dyn ControlSink> = Arc::new(sessions.clone());
        let reader = hub.clone();
        spawn(&back, &halt, async move { reader.run(feed, controls).await });
        spawn(&back, &halt, housekeeping(server.clone(), hub));
        spawn(&back, &halt, commit(sessions));
        let health = Arc::new(Health::new(metrics.clone()));
        let pressure = Pressure::new(metrics.clone(), config.limits.connections, config.memory_limit_bytes);
        spawn(&back, &halt, canary::run(server.clone(), id.clone(), health.clone(), pressure));

        let facts = NodeFacts::new(id.as_str().to_owned(), store.name(), health.subscribe());
        let web = Web::new(server.clone(), config.transport_settings(), facts, front.clone(), stop.clone());
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let public_address = public.as_ref().map_or(nowhere, Listener::address);
        let internal_address = internal.address();
        let (settings, routes) = (config.listener_settings(), routes(web.clone()));
        let public_routes = (routes.clone(), Some(web.clone()));
        if let Some(public) = public {
            front.spawn(public.serve(settings, public_routes, metrics.clone(), front.clone(), doors.clone()));
        }
        let settings = listen::Settings { max_connections: INTERNAL_CONNECTIONS, max_age: None, ..settings };
        // Counted apart: probes are no clients.
        let quiet = Arc::new(Metrics::new().map_err(|error| NodeError::Metrics(error.to_string()))?);
        // Until the very end: who watches the stop shall see it.
        let until = Doors { closing: halt.clone(), closed: halt.clone() };
        back.spawn(internal.serve(settings, (internal_routes(web, log), None), quiet, back.clone(), until));

        tracing::info!(node = %id, listen = %public_address, internal = %internal_address, engine = store.name(), "serving");
        Ok(Node {
            server,
            service: NodeService::new(routes),
            id,
            public: public_address,
            internal: internal_address,
            health,
            drain_grace: config.drain_grace,
            drain_timeout: Some(config.drain_timeout).filter(|_| !alone),
            stop_timeout: config.stop_timeout,
            doors,
            stop,
            halt,
            front,
            back,
        })
    }
}

impl Node {
    /// Collects what a node is to be started with.
    pub fn builder(config: Config) -> NodeBuilder {
        NodeBuilder {
            config,
            extensions: Vec::new(),
            services: Vec::new(),
            engine: None,
            gates: None,
            log: None,
            embedded: false,
        }
    }

    /// Starts a node.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        Self::builder(config).start().await
    }

    /// What clients are served, as a service for another server in this program: nest it where paths stay whole, as
    /// axum's `Router::fallback_service` does.
    pub fn service(&self) -> NodeService {
        self.service.clone()
    }

    /// The address that clients connect to; unspecified for a node that is [embedded](NodeBuilder::embedded).
    pub fn public_addr(&self) -> SocketAddr {
        self.public
    }

    /// The address of metrics and health.
    pub fn internal_addr(&self) -> SocketAddr {
        self.internal
    }

    /// The node's name, new with every start.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The Bayeux server, for extensions and the like.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// What happens on this node from now on.
    pub fn events(&self) -> tokio::sync::broadcast::Receiver<ServerEvent> {
        self.server.events()
    }

    /// A client inside this process, `/service/**` included.
    ///
    /// # Errors
    /// When the engine cannot make a session.
    pub async fn client(&self) -> Result<LocalClient, LocalError> {
        self.server.local_client().await
    }

    /// Waits until messages flow.
    pub async fn ready(&self) {
        let mut readiness = self.health.subscribe();
        // An error means that the node is gone, and with it this reference.
        let _ = readiness.wait_for(|state| *state == Readiness::Ready).await;
    }

    /// Sends the clients of this node to the others, before [`Node::stop`]. Not ready at once; after the configured grace
    /// nobody is accepted any more, and who is there is sent away, evenly over the configured time. Returns at once where
    /// there is no other node, and early when nobody is left. Dropped half-way, it stays where it is.
    pub async fn drain(&self) {
        let Some(over) = self.drain_timeout else { return };
        tracing::info!(node = %self.id, grace = ?self.drain_grace, ?over, "draining");
        self.server.metrics().draining.set(1);
        self.health.ends("draining");
        tokio::time::sleep(self.drain_grace).await;
        self.doors.closing.cancel();
        self.server.sessions().drain(over).await;
    }

    /// Stops the node: no new connections, polls answered, sockets closed with code 1001, progress committed. Gives up
    /// on what is not done within the configured time; true when everything ended by itself.
    pub async fn stop(self) -> bool {
        tracing::info!(node = %self.id, "stopping");
        self.health.ends("stopping");
        self.doors.close();
        self.stop.cancel();
        self.server.sessions().stop();
        self.front.close();
        let front = tokio::time::timeout(self.stop_timeout, self.front.wait()).await.is_ok();
        if !front {
            tracing::warn!(left = self.front.len(), "some connections did not end in time");
        }
        let last = tokio::time::Instant::now();
        if tokio::time::timeout_at(last + LAST_PROGRESS, self.server.sessions().commit()).await.is_err() {
            tracing::warn!("progress could not be written in time: what was not confirmed comes again");
        }
        self.halt.cancel();
        self.back.close();
        let back = tokio::time::timeout_at(last + LAST_TASKS, self.back.wait()).await.is_ok();
        tracing::info!(node = %self.id, "stopped");
        front && back
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.doors.close();
        self.stop.cancel();
        self.halt.cancel();
    }
}

/// Runs a task until `halt`.
fn spawn(tasks: &TaskTracker, halt: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let halt = halt.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = task => {}
            () = halt.cancelled() => {}
        }
    });
}

async fn housekeeping(server: Server, hub: Arc<Hub>) {
    let mut round = tokio::time::interval(HOUSEKEEPING);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        round.tick().await;
        server.sweep(SWEEP_LIMIT).await;
        hub.tidy().await;
    }
}

async fn commit(sessions: Sessions) {
    let mut pause = COMMIT_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let committed = sessions.commit().await;
        // Very many are written less often: each is work for an engine that all nodes share.
        let stretched = Duration::from_secs_f64(committed as f64 / COMMITS_A_SECOND);
        pause = stretched.clamp(COMMIT_EVERY, LONGEST_COMMIT_PAUSE);
    }
}
