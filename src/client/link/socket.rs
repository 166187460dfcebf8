//! The link over a WebSocket. Life is seen by anything that arrives; silence is answered by a ping.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::{Sink, SinkExt as _, Stream as _, StreamExt as _};
use http::{Request, header};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Message as Frame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, error::CapacityError};

use super::{LARGEST, Settings, parse};
use crate::bayeux::Message;
use crate::client::endpoint::Stream;
use crate::client::error::LinkError;

/// Read at once, in bytes: ten thousand clients in one program keep as many buffers.
const READ_BUFFER: usize = 4 * 1024;

/// See the module.
pub(in crate::client) struct Socket {
    stream: WebSocketStream<Stream>,
    /// When the socket counts as silent, or as dead.
    alarm: Pin<Box<Sleep>>,
    /// A ping is on its way.
    pinged: bool,
    idle: std::time::Duration,
    wait: std::time::Duration,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").field("pinged", &self.pinged).finish_non_exhaustive()
    }
}

impl Socket {
    /// Opens a WebSocket.
    pub(in crate::client) async fn open(settings: &Settings) -> Result<Self, LinkError> {
        let endpoint = &settings.endpoint;
        let dialled = timeout(settings.open, endpoint.dial()).await;
        let stream = dialled.map_err(|_| LinkError::Late("connecting"))??;
        let opened = async {
            let mut request = Request::builder()
                .uri(format!("ws://{}{}", endpoint.authority(), endpoint.path))
                .header(header::HOST, endpoint.authority())
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_VERSION, "13")
                .header(header::SEC_WEBSOCKET_KEY, generate_key())
                .body(())
                .map_err(|error| LinkError::NoSocket(error.to_string()))?;
            for (name, value) in &settings.headers {
                request.headers_mut().append(name, value.clone());
            }
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BUFFER)
                .max_message_size(Some(LARGEST))
                .max_frame_size(Some(LARGEST));
            let upgraded = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
            upgraded.map(|(stream, _)| stream).map_err(|error| match error {
                // It may be able to, but not now.
                Error::Http(response) if response.status().is_server_error() => {
                    LinkError::Status(response.status().as_u16())
                }
                Error::Http(response) => LinkError::NoSocket(format!("HTTP status {}", response.status())),
                Error::Io(error) => LinkError::NoSocket(error.to_string()),
                other => LinkError::NoSocket(other.to_string()),
            })
        };
        let stream = timeout(settings.open, opened)
            .await
            .map_err(|_| LinkError::NoSocket("not opened in time".to_owned()))??;
        let (idle, wait) = (settings.idle, settings.wait);
        let alarm = Box::pin(sleep_until(Instant::now() + idle));
        Ok(Self { stream, alarm, pinged: false, idle, wait })
    }

    /// Waits for a sign of life: some proxies let a socket open, and nothing through.
    pub(in crate::client) async fn prove(&mut self) -> Result<(), LinkError> {
        let proven = async {
            self.stream.send(Frame::Ping(Default::default())).await.map_err(broken)?;
            match self.stream.next().await {
                Some(Ok(Frame::Close(_))) | None => Err(LinkError::Closed),
                // Nobody has been asked for anything else yet.
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err(broken(error)),
            }
        };
        timeout(self.wait, proven).await.map_err(|_| LinkError::NoSocket("nothing comes through".to_owned()))?
    }

    pub(super) fn send(&mut self, json: Vec<u8>) -> Result<(), LinkError> {
        // All that we send is JSON that we wrote.
        let text = String::from_utf8(json).map_err(|error| LinkError::Malformed(error.to_string()))?;
        Pin::new(&mut self.stream).start_send(Frame::text(text)).map_err(broken)
    }

    pub(super) async fn hear(&mut self) -> Result<Vec<Message>, LinkError> {
        poll_fn(|context| self.poll_hear(context)).await
    }

    fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<Message>, LinkError>> {
        loop {
            match Pin::new(&mut self.stream).poll_next(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.pinged = false;
                    self.alarm.as_mut().reset(Instant::now() + self.idle);
                    match frame {
                        Frame::Text(text) => return Poll::Ready(parse(text.as_bytes())),
                        Frame::Binary(bytes) => return Poll::Ready(parse(&bytes)),
                        Frame::Close(close) => {
                            let large = close.is_some_and(|close| close.code == CloseCode::Size);
                            return Poll::Ready(Err(if large { LinkError::TooLarge } else { LinkError::Closed }));
                        }
                        _ => {}
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(error))),
                Poll::Ready(None) => return Poll::Ready(Err(LinkError::Closed)),
                Poll::Pending => {
                    // After reading: what a peer says before it closes must not be lost to a write that fails. One that
                    // takes nothing shows in its silence.
                    if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(context) {
                        return Poll::Ready(Err(broken(error)));
                    }
                    if self.alarm.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    if self.pinged {
                        return Poll::Ready(Err(LinkError::Late("the socket is silent")));
                    }
                    self.pinged = true;
                    self.alarm.as_mut().reset(Instant::now() + self.wait);
                    if let Err(error) = Pin::new(&mut self.stream).start_send(Frame::Ping(Default::default())) {
                        return Poll::Ready(Err(broken(error)));
                    }
                }
            }
        }
    }
}

fn broken(error: Error) -> LinkError {
    match error {
        Error::Io(error) => LinkError::Io(error),
        Error::ConnectionClosed | Error::AlreadyClosed => LinkError::Closed,
        Error::Capacity(CapacityError::MessageTooLong { .. }) => LinkError::Malformed("too long a message".to_owned()),
        other => LinkError::Malformed(other.to_string()),
    }
}
