//! A connection on which nothing but plain POSTs come: long-polling and publishing. Read and answered here, without
//! hyper, because a held poll costs no buffer then (`docs/design.md`, "Listener"). Driven by the accept loop's tasks.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use http::Request;
use http::header::CONNECTION;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use warp::reply::Response;

use super::head::{response_head, take_post};
use super::{MAX_HEAD_BYTES, Place, Settings};
use crate::metrics::{Limit, Metrics};
use crate::transport::OnSent;

/// A connection between two requests, or with one under way.
pub(super) struct Posts {
    tcp: TcpStream,
    place: Place,
    /// Read and not taken yet. Empty, and without memory of its own, unless a client sends ahead of the answer.
    arrived: Bytes,
    settings: Settings,
    /// For the time between requests. Set further for each: a new timer costs more than one that is moved.
    idle: Pin<Box<Sleep>>,
}

/// What comes next on a connection.
pub(super) enum Next {
    /// This request.
    Post(Box<Request<Bytes>>),
    /// Something for hyper.
    Other,
    /// Nothing: the peer is gone, was silent for too long, or the node stops.
    End,
}

impl Posts {
    pub(super) fn new(tcp: TcpStream, place: Place, settings: Settings) -> Self {
        let idle = Box::pin(tokio::time::sleep(settings.idle_timeout));
        Self { tcp, place, arrived: Bytes::new(), settings, idle }
    }

    /// The connection, and what was read of it and not taken.
    pub(super) fn into_parts(self) -> (TcpStream, Place, Bytes) {
        (self.tcp, self.place, self.arrived)
    }

    /// Waits for the next request, at the most for as long as a connection may be idle.
    pub(super) async fn next(&mut self, closed: &CancellationToken, metrics: &Metrics) -> Next {
        while self.arrived.is_empty() {
            self.idle.as_mut().reset(Instant::now() + self.settings.idle_timeout);
            tokio::select! {
                biased;
                // First: a request that is here already is answered, whatever happens.
                readable = self.tcp.readable() => if readable.is_err() { return Next::End },
                () = closed.cancelled() => return Next::End,
                () = self.idle.as_mut() => {
                    metrics.limit(Limit::Idle);
                    return Next::End;
                }
            }
            match self.read() {
                Ok(0) => return Next::End,
                Ok(count) => metrics.received_bytes.inc_by(count as u64),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Next::End,
            }
        }
        take_post(&mut self.arrived).map_or(Next::Other, |post| Next::Post(Box::new(post)))
    }

    /// Takes what has arrived: into room that all connections share, and from there into memory of its own size.
    fn read(&mut self) -> io::Result<usize> {
        thread_local!(static ROOM: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_HEAD_BYTES].into()));
        ROOM.with_borrow_mut(|room| {
            // Not `try_read`: that leaves the socket marked as readable, and whoever waits next asks the kernel.
            let read = self.tcp.read(room).now_or_never();
            let count = read.unwrap_or_else(|| Err(io::ErrorKind::WouldBlock.into()))?;
            self.arrived = Bytes::copy_from_slice(&room[..count]);
            Ok(count)
        })
    }

    /// Ends when the peer has closed the connection. Not seen behind a request that was sent ahead.
    pub(super) async fn gone(&self) {
        let ahead = !self.arrived.is_empty() || matches!(self.tcp.peek(&mut [0]).await, Ok(1..));
        if ahead {
            std::future::pending().await
        }
    }

    /// Sends a response, the `last` one or not. Receipts in it are served once the kernel has taken its last byte. Gives
    /// whether the connection can be used again.
    ///
    /// # Errors
    /// When the peer is gone, or took nothing for as long as it may.
    pub(super) async fn send(&mut self, mut response: Response, last: bool, metrics: &Metrics) -> io::Result<bool> {
        let receipts = response.extensions_mut().remove::<OnSent>();
        let (parts, mut body) = response.into_parts();
        let length = body.size_hint().exact();
        let close = last || length.is_none() || parts.headers.contains_key(CONNECTION);
        let small = length.and_then(|length| usize::try_from(length).ok()).filter(|length| *length < MAX_HEAD_BYTES);
        let mut out = response_head(&parts, length, close, SystemTime::now(), small.unwrap_or(0));
        drop(parts);
        let patience = self.settings.write_timeout;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(io::Error::other)?.into_data() else { continue };
            // With the head in one piece, as long as the first part is small; a large one is not copied.
            if out.len() + data.len() <= MAX_HEAD_BYTES {
                out.extend_from_slice(&data);
                continue;
            }
            self.write(Bytes::from(std::mem::take(&mut out)).chain(data), patience, metrics).await?;
        }
        self.write(&out[..], patience, metrics).await?;
        if let Some(receipts) = receipts {
            receipts.sent();
        }
        if close {
            self.tcp.shutdown().await?;
        }
        Ok(!close)
    }

    async fn write(&mut self, mut out: impl Buf, patience: Duration, metrics: &Metrics) -> io::Result<()> {
        // Mostly the kernel takes all of it at once, and nobody needs a timer, or room for one.
        if out.has_remaining()
            && out.chunk().len() == out.remaining()
            && let Ok(written) = self.tcp.try_write(out.chunk())
        {
            metrics.sent_bytes.inc_by(written as u64);
            out.advance(written);
        }
        if out.has_remaining() { Box::pin(self.write_patiently(out, patience, metrics)).await } else { Ok(()) }
    }

    async fn write_patiently(&mut self, mut out: impl Buf, patience: Duration, metrics: &Metrics) -> io::Result<()> {
        while out.has_remaining() {
            match tokio::time::timeout(patience, self.tcp.write_buf(&mut out)).await {
                Ok(written) => metrics.sent_bytes.inc_by(written? as u64),
                Err(_) => {
                    metrics.limit(Limit::WriteTime);
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
        Ok(())
    }
}
