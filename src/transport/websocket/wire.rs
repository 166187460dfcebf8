//! The write path of a socket: frames in, bytes out, coalesced.
//!
//! Chosen by measurement (`docs/design.md`, "WebSocket write path"): tungstenite's codec reads, with a small buffer; all
//! that leaves goes through the [`SocketOutlet`], which frames it and writes all that is ready at once. Reading and
//! flushing go on side by side, so that a peer that does not read cannot keep us from reading.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, Stream as _, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::Stream;
use super::outlet::{Duplex, SocketOutlet};
use crate::metrics::Metrics;

/// Allocated for each connection for life, and filled with zeros at each read: the library's default is 128 KiB.
const READ_BUFFER: usize = 1024;
/// Replies may pile up to about here before the peer is not read from any more.
const MAX_QUEUED: usize = 1 << 20;
/// How long the peer may take to answer a close frame.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a peer that broke the protocol that are still read after its close frame.
const MAX_READ_AWAY: u64 = 64 << 20;

/// What happened on the socket.
pub(super) enum Event {
    /// A message's payload; text and binary are the same to Bayeux.
    Payload(Bytes),
    /// An answer to a ping.
    Pong(Bytes),
    /// Some other sign of life.
    Alive,
    /// All that was queued is with the kernel.
    Flushed,
    /// The hub has written messages: they want a ping, or the kernel did not take all of it.
    Pushed,
    /// The connection is over.
    Gone(Gone),
}

/// How a connection came to its end.
pub(super) enum Gone {
    /// It is closed, or it broke.
    Closed,
    /// The peer wants to close it; the codec has queued the answer.
    Closing,
    /// The peer broke the protocol: close with this code.
    Violation(CloseCode, &'static str),
}

/// A socket with its codec.
pub(super) struct Wire {
    socket: WebSocketStream<Duplex>,
    outlet: Arc<SocketOutlet>,
    /// Something is queued that the kernel did not have when we last looked.
    unflushed: bool,
    /// See [`Stream::place`].
    _place: Box<dyn Send + Sync>,
}

impl Wire {
    pub(super) async fn new(stream: Stream, max_message: usize, metrics: Arc<Metrics>) -> Self {
        // What the codec writes, control frames only, goes into the outlet at once.
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        let Stream { tcp, first_bytes, place } = stream;
        let (read, write) = tcp.into_split();
        let outlet = Arc::new(SocketOutlet::new(write, metrics));
        let duplex = Duplex::new(read, outlet.clone());
        let socket = if first_bytes.is_empty() {
            WebSocketStream::from_raw_socket(duplex, Role::Server, Some(config)).await
        } else {
            WebSocketStream::from_partially_read(duplex, first_bytes.to_vec(), Role::Server, Some(config)).await
        };
        Self { socket, outlet, unflushed: false, _place: place }
    }

    /// The way out, for who writes to it.
    pub(super) fn outlet(&self) -> &Arc<SocketOutlet> {
        &self.outlet
    }

    /// Whether the kernel lacks something that was queued.
    pub(super) fn is_unflushed(&self) -> bool {
        self.outlet.pending() > 0
    }

    /// Whether so much is queued that the peer has to read before it is read from.
    pub(super) fn is_full(&self) -> bool {
        self.outlet.pending() > MAX_QUEUED
    }

    /// Bytes that the kernel has taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.outlet.total()
    }

    /// The next event; reads only if `read`. Cancel-safe.
    pub(super) async fn next(&mut self, read: bool) -> Event {
        poll_fn(|context| {
            if self.outlet.poll_news(context) {
                return Poll::Ready(Event::Pushed);
            }
            self.unflushed |= self.is_unflushed();
            if self.unflushed {
                match self.outlet.poll_flush(context) {
                    Poll::Ready(Ok(())) => {
                        self.unflushed = false;
                        return Poll::Ready(Event::Flushed);
                    }
                    Poll::Ready(Err(_)) => {
                        // What cannot be written any more must not keep us from reading what is there.
                        self.outlet.abandon();
                        return Poll::Ready(Event::Gone(Gone::Closed));
                    }
                    Poll::Pending => {}
                }
            }
            if !read {
                return Poll::Pending;
            }
            std::pin::Pin::new(&mut self.socket).poll_next(context).map(|frame| match frame {
                Some(Ok(Message::Text(text))) => Event::Payload(text.into()),
                Some(Ok(Message::Binary(bytes))) => Event::Payload(bytes),
                Some(Ok(Message::Pong(token))) => Event::Pong(token),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => Event::Alive,
                Some(Ok(Message::Close(_))) => Event::Gone(Gone::Closing),
                None => Event::Gone(Gone::Closed),
                Some(Err(error)) => Event::Gone(gone(&error)),
            })
        })
        .await
    }

    /// Lets the answer to the peer's close frame out.
    pub(super) async fn closed_by_peer(&mut self) {
        let goodbye = async {
            while let Some(Ok(_)) = self.socket.next().await {}
            // The codec has written its answer, and reports the end before it flushes.
            self.socket.get_mut().flush().await
        };
        let _ = tokio::time::timeout(CLOSE_PATIENCE, goodbye).await;
    }

    /// Says why and waits for the peer's answer.
    pub(super) async fn close(&mut self, code: CloseCode, reason: &'static str) {
        self.outlet.close();
        let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
        let goodbye = async {
            self.socket.send(Message::Close(Some(frame))).await?;
            let mut heard = false;
            // The codec reads nothing more after an error.
            while let Some(Ok(message)) = self.socket.next().await {
                heard |= matches!(message, Message::Close(_));
            }
            if !heard {
                // An end with unread bytes is a reset, which takes from the peer what it has not read, and so the reason.
                let mut rest = self.socket.get_mut().take(MAX_READ_AWAY);
                tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            }
            Ok::<_, Error>(())
        };
        // However it ends, and whether in time: it is over.
        let _ = tokio::time::timeout(CLOSE_PATIENCE, goodbye).await;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The hub may be about to write.
        self.outlet.close();
    }
}

fn gone(error: &Error) -> Gone {
    match error {
        Error::Protocol(ProtocolError::UnmaskedFrameFromClient) => {
            Gone::Violation(CloseCode::Unsupported, "frames must be masked")
        }
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing) => Gone::Closed,
        Error::Protocol(_) => Gone::Violation(CloseCode::Protocol, "protocol error"),
        Error::Utf8(_) => Gone::Violation(CloseCode::Invalid, "not UTF-8"),
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Gone::Violation(CloseCode::Size, "message too large"),
        _ => Gone::Closed,
    }
}
