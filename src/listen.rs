//! Listening sockets: our own accept loop, because that is where limits, time-outs and a clean end are to be had
//! (`docs/design.md`, "Listener"). Plain POSTs are read and answered in `posts`, all else by hyper; warp routes all but
//! the plain POSTs of mounts, which go to `Web` as they are. Knows HTTP connections, not what is asked on them.

mod connection;
mod guest;
mod head;
mod posts;
mod sent;

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::{Instrument, Span};
use warp::filters::BoxedFilter;
use warp::reply::Response;

use crate::metrics::{Limit, Metrics};
use crate::server::RequestId;
use crate::transport::{Arrival, Hangup, Later, Stream, TakeStream, Web, old_at, request_span};
use connection::{Connection, Shared};
pub use guest::{GuestBody, NodeService};
use posts::{Next, Posts};
use sent::SentBody;

/// Pending connections that the kernel keeps. A reconnect storm must not turn into SYN retries of a second each.
const BACKLOG: u32 = 4096;
/// Bytes of a request's head; hyper refuses larger ones with 431. Also what is read at a time.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Connections above the limit that are told so at the same time; more are just closed.
const REFUSALS: usize = 64;
/// How long a refused connection may take to read why.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// Pause after an accept failed (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener must know of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Connections at the same time.
    pub max_connections: usize,
    /// How long a request's head may take from its first byte.
    pub header_timeout: Duration,
    /// How long a connection may be open without a request.
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub write_timeout: Duration,
    /// How old a connection may become, about: the first answer after that is its last. `None` for any age.
    pub max_age: Option<Duration>,
}

/// How a listener ends, in two steps, so that no request is lost between them.
#[derive(Debug, Clone, Default)]
pub struct Doors {
    /// Nobody is accepted any more, and the next answer on each connection is its last.
    pub closing: CancellationToken,
    /// Connections without a request are closed, too.
    pub closed: CancellationToken,
}

impl Doors {
    /// Both steps at once.
    pub fn close(&self) {
        self.closing.cancel();
        self.closed.cancel();
    }
}

/// A bound address that serves once told to.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

/// Serves HTTP/1.1 on one address.
struct Acceptor {
    settings: Settings,
    routes: BoxedFilter<(Response,)>,
    web: Option<Web>,
    metrics: Arc<Metrics>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    tasks: TaskTracker,
    doors: Doors,
}

/// A place among the connections allowed; given back when dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
    }
}

impl Listener {
    /// Binds an address; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that was picked.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections until the doors close, then ends. Connections with a request are served to its end. They run on
    /// `tasks`. Plain POSTs go to `web`, if there is one; all else, and what it leaves, to `routes`.
    pub async fn serve(
        self,
        settings: Settings,
        (routes, web): (BoxedFilter<(Response,)>, Option<Web>),
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        doors: Doors,
    ) {
        let (places, refusals) = (Semaphore::new(settings.max_connections), Semaphore::new(REFUSALS));
        let (places, refusals) = (Arc::new(places), Arc::new(refusals));
        let acceptor = Arc::new(Acceptor { settings, routes, web, metrics, places, refusals, tasks, doors });
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = acceptor.doors.closing.cancelled() => break,
            };
            match accepted {
                Ok((tcp, peer)) => acceptor.admit(tcp, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        // Whoever stands in the kernel's queue believes to be connected: closing it would reset them.
        // Not subject to the task's budget, which would end this after 128 of them.
        while let Some(Ok((tcp, peer))) = tokio::task::unconstrained(self.listener.accept()).now_or_never() {
            acceptor.admit(tcp, peer);
        }
    }
}

impl Acceptor {
    fn admit(self: &Arc<Self>, tcp: TcpStream, peer: SocketAddr) {
        self.metrics.accepted.inc();
        let Ok(permit) = self.places.clone().try_acquire_owned() else { return self.refuse(tcp) };
        self.metrics.connections.inc();
        let place = Place { _permit: permit, metrics: self.metrics.clone() };
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "cannot set nodelay");
        }
        let acceptor = self.clone();
        self.tasks.spawn(async move { acceptor.serve(tcp, peer, place).await });
    }

    /// Says that there are too many connections.
    fn refuse(&self, mut tcp: TcpStream) {
        self.metrics.limit(Limit::Connections);
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
        self.tasks.spawn(async move {
            let answer: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
                Content-Length: 20\r\nRetry-After: 5\r\nConnection: close\r\n\r\nToo many connections";
            let refusal = async {
                tcp.write_all(answer).await?;
                tcp.shutdown().await?;
                // Until the peer closes: a reset would take the answer away from it.
                tokio::io::copy(&mut tcp, &mut tokio::io::sink()).await
            };
            let _ = tokio::time::timeout(REFUSAL_TIME, refusal).await;
            drop(permit);
        });
    }

    async fn serve(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, place: Place) {
        let mut posts = Posts::new(tcp, place, self.settings);
        let old_at = old_at(self.settings.max_age);
        loop {
            // Taking a request that was read before, and writing without waiting, cost nothing of what a task may do at
            // a time: a peer that sends thousands of requests ahead would hold up all others.
            tokio::task::coop::consume_budget().await;
            let answering = match posts.next(&self.doors.closed, &self.metrics).await {
                // Here, so that the box is gone while the answer is waited for.
                Next::Post(request) => self.answer_post(*request, peer),
                // For the rest of the connection's life: what is not plain once is not a poll of ours.
                Next::Other => return Box::pin(self.serve_by_hyper(posts, peer, old_at)).await,
                Next::End => return,
            };
            let response = tokio::select! {
                biased;
                response = answering => response,
                () = posts.gone() => return,
            };
            if response.extensions().get::<Hangup>().is_some() {
                return;
            }
            match Box::pin(posts.send(response, self.is_last(old_at), &self.metrics)).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tracing::debug!(%peer, %error, "connection ended"),
            }
        }
    }

    /// What the node says to a plain POST. Nothing of it is held while the answer is waited for.
    fn answer_post(&self, mut post: Request<Bytes>, peer: SocketAddr) -> impl Future<Output = Response> + use<> {
        let (arrival, span) = arrive(&mut post, peer);
        let routed = self.web.as_ref().and_then(|web| span.in_scope(|| web.route_post(&arrival, post.body())));
        let answering = routed.unwrap_or_else(|| {
            post.extensions_mut().insert(arrival);
            let routes = self.routes.clone();
            async move { routed_by(&routes, post.map(Full::new)).await }.boxed()
        });
        answered(answering).instrument(span)
    }

    /// Whether the answer under way is the last on its connection.
    fn is_last(&self, old_at: Option<Instant>) -> bool {
        self.doors.closing.is_cancelled() || old_at.is_some_and(|old_at| old_at <= Instant::now())
    }

    async fn serve_by_hyper(self: Arc<Self>, posts: Posts, peer: SocketAddr, old_at: Option<Instant>) {
        let shared = Arc::new(Shared::default());
        let io = Connection::new(posts, shared.clone(), &self.settings, self.metrics.clone());
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
            shared.request_begins();
            let take: TakeStream = take_stream;
            request.extensions_mut().insert(take);
            let (acceptor, shared) = (self.clone(), shared.clone());
            async move {
                let mut response = answer(&acceptor.routes, request, peer).await;
                if response.extensions().get::<Hangup>().is_some() {
                    return Err(HungUp);
                }
                if acceptor.is_last(old_at) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(SentBody::wrap(response, shared))
            }
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(self.settings.idle_timeout).max_buf_size(MAX_HEAD_BYTES);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = self.doors.closed.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = outcome {
            if error.is_timeout() {
                self.metrics.limit(Limit::Idle);
            }
            tracing::debug!(%peer, %error, "connection ended");
        }
    }
}

/// What the routes say to a request.
async fn answer<B>(routes: &BoxedFilter<(Response,)>, mut request: Request<B>, peer: SocketAddr) -> Response
where
    B: Body + Send + Sync + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (arrival, span) = arrive(&mut request, peer);
    request.extensions_mut().insert(arrival);
    answered(routed_by(routes, request)).instrument(span).await
}

/// Notes where a request came in, and begins its span.
fn arrive<B>(request: &mut Request<B>, peer: SocketAddr) -> (Arrival, Span) {
    let (uri, headers) = (request.uri().clone(), Arc::new(std::mem::take(request.headers_mut())));
    let arrival = Arrival { id: RequestId::new(), peer, uri, headers };
    let span = request_span(&arrival, request.method());
    (arrival, span)
}

async fn answered(answering: impl Future<Output = Response>) -> Response {
    let response = answering.await;
    tracing::debug!(status = response.status().as_u16(), "answered");
    response
}

async fn routed_by<B>(routes: &BoxedFilter<(Response,)>, request: Request<B>) -> Response
where
    B: Body + Send + Sync + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let routed = Box::pin(warp::service(routes.clone()).call(request)).await;
    let mut first = routed.unwrap_or_else(|never| match never {});
    match first.extensions_mut().remove::<Later>().and_then(Later::take) {
        Some(later) => {
            // Nothing of it is needed while a poll is held.
            drop(first);
            later.await
        }
        None => first,
    }
}

/// The service asks for the connection's end without a response.
#[derive(Debug, thiserror::Error)]
#[error("closed without a response")]
struct HungUp;

/// The socket of an upgraded connection, without HTTP's buffers around it.
fn take_stream(upgraded: hyper::upgrade::Upgraded) -> Option<Stream> {
    let parts = upgraded.downcast::<TokioIo<Connection>>().ok()?;
    let (tcp, place, unread) = parts.io.into_inner().into_parts();
    // Copied, not kept: a slice would pin the whole read buffer for the life of the socket.
    let first_bytes = [&parts.read_buf[..], &unread[..]].concat().into();
    Some(Stream { tcp, first_bytes, place: Box::new(place) })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncReadExt;
    use warp::{Filter, Reply};

    use super::*;

    fn settings() -> Settings {
        let second = Duration::from_secs(1);
        Settings {
            max_connections: 400,
            header_timeout: second,
            idle_timeout: second,
            write_timeout: second,
            max_age: None,
        }
    }

    /// Whoever is in the kernel's queue when the doors close believes to be connected.
    #[tokio::test]
    async fn who_stands_in_the_queue_is_served() {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let mut clients = Vec::new();
        for _ in 0..300 {
            let mut client = TcpStream::connect(listener.address()).await.expect("a place in the queue");
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
            clients.push(client);
        }
        let routes = warp::any().map(|| "there".into_response()).boxed();
        let metrics = Arc::new(Metrics::new().expect("names are distinct"));
        let (tasks, doors) = (TaskTracker::new(), Doors::default());
        doors.closing.cancel();
        listener.serve(settings(), (routes, None), metrics, tasks.clone(), doors).await;
        for mut client in clients {
            let mut answer = String::new();
            tokio::time::timeout(Duration::from_secs(10), client.read_to_string(&mut answer))
                .await
                .expect("in time")
                .expect("read");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("there"), "{answer}");
        }
        tasks.close();
        tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.expect("all connections end");
    }

    /// One thread serves all: a peer with much to ask must not have it for as long as that takes.
    #[tokio::test]
    async fn requests_sent_ahead_hold_nobody_up() {
        const MANY: usize = 1024;
        // What tokio lets a task do at a time.
        const AT_A_TIME: usize = 128;
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let mut client = TcpStream::connect(listener.address()).await.expect("a place in the queue");
        // Divides what is read at a time: no request is cut.
        let head = "POST / HTTP/1.1\r\nContent-Length: 0\r\n";
        let request = format!("{head}X: {}\r\n\r\n", "x".repeat(64 - head.len() - "X: \r\n\r\n".len()));
        client.write_all(request.repeat(MANY).as_bytes()).await.expect("the kernel takes it");

        let answered = Arc::new(AtomicUsize::new(0));
        let counted = answered.clone();
        let routes = warp::any().map(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            "".into_response()
        });
        let metrics = Arc::new(Metrics::new().expect("names are distinct"));
        let (tasks, doors) = (TaskTracker::new(), Doors::default());
        let serving = listener.serve(settings(), (routes.boxed(), None), metrics, tasks.clone(), doors.clone());
        let serving = tokio::spawn(serving);
        let (mut seen, mut longest) = (0, 0);
        let watching = async {
            while seen < MANY {
                tokio::task::yield_now().await;
                let now = answered.load(Ordering::Relaxed);
                (longest, seen) = (longest.max(now - seen), now);
            }
        };
        tokio::time::timeout(Duration::from_secs(10), watching).await.expect("all are answered");
        assert!(longest <= AT_A_TIME, "{longest} of {MANY} before it was another's turn");
        doors.close();
        drop(client);
        serving.await.expect("no panic");
        tasks.close();
        tokio::time::timeout(Duration::from_secs(10), tasks.wait()).await.expect("all connections end");
    }
}
