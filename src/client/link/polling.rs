//! The link over HTTP: a connection that a connect is held on, and one for everything else, whose requests go one after
//! the other so that their order is kept.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Batch, Heard, LARGEST, Settings, parse};
use crate::client::error::LinkError;

/// See the module.
#[derive(Debug)]
pub(in crate::client) struct Polling {
    settings: Arc<Settings>,
    connects: Lane,
    others: Lane,
}

/// A connection, its request under way, and what waits for it.
#[derive(Default)]
struct Lane {
    idle: Option<Connection>,
    exchange: Option<Exchange>,
    queue: VecDeque<Batch>,
}

type Exchange = Pin<Box<dyn Future<Output = (Option<Connection>, Result<Answer, LinkError>)> + Send>>;

/// Status and body.
type Answer = (StatusCode, Bytes);

/// Its task ends with it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane").field("queue", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Polling {
    /// Connections are opened when there is something to send.
    pub(in crate::client) fn new(settings: Arc<Settings>) -> Self {
        Self { settings, connects: Lane::default(), others: Lane::default() }
    }

    pub(super) fn send(&mut self, batch: Batch) {
        let lane = if batch.hold.is_some() { &mut self.connects } else { &mut self.others };
        lane.queue.push_back(batch);
    }

    pub(super) async fn hear(&mut self) -> Result<Heard, LinkError> {
        self.connects.begin(&self.settings);
        self.others.begin(&self.settings);
        let (connect, answer) = poll_fn(|context| {
            for (connect, lane) in [(false, &mut self.others), (true, &mut self.connects)] {
                let Some(exchange) = &mut lane.exchange else { continue };
                if let Poll::Ready((connection, answer)) = exchange.as_mut().poll(context) {
                    lane.exchange = None;
                    lane.idle = connection;
                    return Poll::Ready((connect, answer));
                }
            }
            Poll::Pending
        })
        .await;
        match answer? {
            (StatusCode::OK, body) => parse(&body).map(Heard::Messages),
            (StatusCode::PAYLOAD_TOO_LARGE, _) if !connect => Err(LinkError::TooLarge),
            // These say "not now".
            (status, _) if connect || status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) => {
                Err(LinkError::Status(status.as_u16()))
            }
            (status, _) => Ok(Heard::Refused(status.as_u16())),
        }
    }
}

impl Lane {
    /// Takes up the next batch, if none is under way.
    fn begin(&mut self, settings: &Arc<Settings>) {
        if self.exchange.is_some() {
            return;
        }
        let Some(batch) = self.queue.pop_front() else { return };
        // A held one that is overdue is a dead connection; what is to be answered at once may take a busy server longer.
        let held = batch.hold.filter(|hold| !hold.is_zero());
        let limit = held.map_or(settings.patience, |hold| hold + settings.wait);
        let (idle, settings) = (self.idle.take(), settings.clone());
        self.exchange = Some(Box::pin(async move {
            match timeout(limit, post(idle, &settings, batch.json.into())).await {
                Ok(Ok((connection, answer))) => (connection, Ok(answer)),
                Ok(Err(error)) => (None, Err(error)),
                Err(_) => (None, Err(LinkError::Late("an HTTP request"))),
            }
        }));
    }
}

async fn post(
    idle: Option<Connection>,
    settings: &Settings,
    body: Bytes,
) -> Result<(Option<Connection>, Answer), LinkError> {
    let mut connection = match idle.filter(|connection| !connection.sender.is_closed()) {
        Some(connection) => connection,
        None => open(settings).await?,
    };
    let broken = |error: hyper::Error| LinkError::Io(std::io::Error::other(error));
    connection.sender.ready().await.map_err(broken)?;
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = settings.endpoint.path.parse().map_err(|_| LinkError::Malformed("the path".to_owned()))?;
    let headers = request.headers_mut();
    let host = settings.endpoint.authority().parse().map_err(|_| LinkError::Malformed("the host".to_owned()))?;
    headers.insert(header::HOST, host);
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    for (name, value) in &settings.headers {
        headers.append(name, value.clone());
    }
    let response = connection.sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    let body = body.map_err(|error| LinkError::Io(std::io::Error::other(error)))?.to_bytes();
    let reusable = (!connection.sender.is_closed()).then_some(connection);
    Ok((reusable, (status, body)))
}

async fn open(settings: &Settings) -> Result<Connection, LinkError> {
    let opened = async {
        let stream = settings.endpoint.dial().await?;
        http1::Builder::new()
            .max_buf_size(16 * 1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| LinkError::Io(std::io::Error::other(error)))
    };
    let (sender, connection) = timeout(settings.open, opened).await.map_err(|_| LinkError::Late("connecting"))??;
    // Ends when the connection does, or with `Connection`.
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP connection ended");
        }
    });
    Ok(Connection { sender, task: task.abort_handle() })
}
