//! Settings of a client, and its start.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{Notify, broadcast, mpsc, watch};

use super::driver::{Driver, Status};
use super::endpoint::Endpoint;
use super::link::Settings;
use super::{Backoff, COMMANDS, Client, ClientError, ClientExtension, Handle, Transport};

/// Events that wait for who listens.
const EVENTS: usize = 16;

/// Settings of a client; see each for its default.
pub struct ClientBuilder {
    url: String,
    headers: Vec<(String, String)>,
    /// PEM.
    roots: Vec<u8>,
    extensions: Vec<Arc<dyn ClientExtension>>,
    /// What the driver goes by.
    pub(super) options: Options,
    connect_timeout: Duration,
    open_timeout: Duration,
    patience: Duration,
    publish_timeout: Duration,
    liveness: (Duration, Duration),
    queue: usize,
}

/// What the driver goes by.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub transports: Vec<Transport>,
    pub backoff: Backoff,
    pub resume: bool,
    pub hold: Duration,
    pub upgrade: Duration,
}

impl ClientBuilder {
    pub(super) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            headers: Vec::new(),
            roots: Vec::new(),
            extensions: Vec::new(),
            options: Options {
                transports: vec![Transport::WebSocket, Transport::LongPolling],
                backoff: Backoff::default(),
                resume: true,
                hold: Duration::from_secs(5),
                upgrade: Duration::from_secs(60),
            },
            connect_timeout: Duration::from_secs(30),
            open_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(8),
            publish_timeout: Duration::from_secs(60),
            liveness: (Duration::from_secs(5), Duration::from_secs(3)),
            queue: 1024,
        }
    }

    /// A header of every request, for example `Authorization`.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Trusts these certificates (PEM) beside those of the system.
    #[must_use]
    pub fn root_certificates(mut self, pem: &[u8]) -> Self {
        self.roots.extend_from_slice(pem);
        self
    }

    /// Lets an extension see all messages, after those added before.
    #[must_use]
    pub fn extension(mut self, extension: impl ClientExtension) -> Self {
        self.extensions.push(Arc::new(extension));
        self
    }

    /// Which links may be used, the preferred first. Default: WebSocket, then long-polling.
    #[must_use]
    pub fn transports(mut self, transports: &[Transport]) -> Self {
        self.options.transports = transports.to_vec();
        self
    }

    /// Pauses after failures. Default: from 250 ms to 30 s.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.options.backoff = backoff;
        self
    }

    /// Whether to ask the server for positions, by which each message comes exactly once. Default: yes.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Self {
        self.options.resume = resume;
        self
    }

    /// How long a server may hold a poll, so that a dead connection is noticed soon: `wait` of the liveness later.
    /// Default: 5 s, or less if the server says so. On a WebSocket it may take as long as the server likes.
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.options.hold = hold;
        self
    }

    /// A WebSocket that was silent for `idle` is pinged, and given up when nothing comes within `wait`; so is a poll that
    /// is answered so much too late. Default: 5 s, 3 s.
    #[must_use]
    pub fn liveness(mut self, idle: Duration, wait: Duration) -> Self {
        self.liveness = (idle, wait);
        self
    }

    /// After how long on long-polling a WebSocket is tried again; twice as long after each failure, up to ten times.
    /// Default: 60 s.
    #[must_use]
    pub fn upgrade(mut self, after: Duration) -> Self {
        self.options.upgrade = after;
        self
    }

    /// How long [`ClientBuilder::connect`] waits. Default: 30 s.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long opening a connection may take. Default: 5 s.
    #[must_use]
    pub fn open_timeout(mut self, limit: Duration) -> Self {
        self.open_timeout = limit;
        self
    }

    /// How long the server may take to answer, beyond the time that it may hold a connect. Default: 8 s.
    #[must_use]
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// How long a publish or subscribe may take in all, with every repetition. Default: 60 s.
    #[must_use]
    pub fn publish_timeout(mut self, limit: Duration) -> Self {
        self.publish_timeout = limit;
        self
    }

    /// Messages that may wait in a subscription. Default: 1024.
    #[must_use]
    pub fn queue(mut self, messages: usize) -> Self {
        self.queue = messages.max(1);
        self
    }

    /// Starts the client, and returns once it is connected.
    ///
    /// # Errors
    /// As [`ClientBuilder::start`]; and when the server refuses, or nothing answered in time.
    pub async fn connect(self) -> Result<Client, ClientError> {
        let limit = self.connect_timeout;
        let client = self.start()?;
        client.connected(limit).await?;
        Ok(client)
    }

    /// Starts the client; it connects in the background, and what is asked of it waits until then. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`ClientError`] when the URL, a header or a certificate is none.
    pub fn start(self) -> Result<Client, ClientError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let wrong = || ClientError::Header(name.clone());
            let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
            headers.append(HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?, value);
        }
        let (idle, wait) = self.liveness;
        let settings = Settings {
            endpoint: Endpoint::parse(&self.url, &self.roots)?,
            headers,
            open: self.open_timeout,
            patience: self.patience,
            idle,
            wait,
        };
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (close, closing) = mpsc::channel(1);
        let (events, _) = broadcast::channel(EVENTS);
        let (sender, status) = watch::channel(Status::Starting(None));
        let gone = Arc::new(Notify::new());
        let handle = Handle { commands, close, events: events.downgrade(), status, gone: gone.clone() };
        let driver = Driver::new(settings, self.options, self.extensions, (inbox, closing), events, sender, gone);
        // Ends when the last handle is gone or the client is closed, in a bounded time.
        tokio::spawn(driver.run());
        Ok(Client { handle: Arc::new(handle), queue: self.queue, patience: self.publish_timeout })
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers may be secrets.
        f.debug_struct("ClientBuilder").field("url", &self.url).field("options", &self.options).finish_non_exhaustive()
    }
}
