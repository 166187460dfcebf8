//! A TCP connection with its time limits, which also knows when a response has really left.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::posts::Posts;
use super::{Place, Settings};
use crate::metrics::{Limit, Metrics};
use crate::transport::OnSent;

/// Where a connection stands between two requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Waiting for a request; hyper's own time-out bounds it.
    Idle,
    /// A request's head has begun.
    Head,
    /// A request is being served.
    Busy,
}

/// What connection, service and body tell each other.
#[derive(Default)]
pub(super) struct Shared {
    phase: AtomicU8,
    /// The response's body is in the write buffer to its end.
    finished: AtomicBool,
    /// Receipts of responses that are in the write buffer. Dropped with the connection, they give their messages back.
    unsent: Mutex<Vec<OnSent>>,
}

impl Shared {
    /// The head is complete: the service has the request.
    pub(super) fn request_begins(&self) {
        self.finished.store(false, Ordering::Relaxed);
        self.set(Phase::Busy);
    }

    /// The whole body was handed to the connection; it counts as sent with the next flush.
    pub(super) fn response_ends(&self, receipts: Option<OnSent>) {
        self.unsent.lock().extend(receipts);
        self.finished.store(true, Ordering::Release);
    }

    fn flushed(&self) {
        if self.finished.swap(false, Ordering::Acquire) {
            self.set(Phase::Idle);
            let sent = std::mem::take(&mut *self.unsent.lock());
            sent.iter().for_each(OnSent::sent);
        }
    }

    fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }
}

/// The connection as hyper sees it. Owned by the connection's task.
pub(super) struct Connection {
    tcp: TcpStream,
    place: Place,
    /// Read before hyper had the connection.
    arrived: Bytes,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    header_timeout: Duration,
    write_timeout: Duration,
    /// Runs while a head is incomplete.
    head: Option<Pin<Box<Sleep>>>,
    /// Runs while the kernel takes nothing.
    write: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) fn new(posts: Posts, shared: Arc<Shared>, settings: &Settings, metrics: Arc<Metrics>) -> Self {
        let Settings { header_timeout, write_timeout, .. } = *settings;
        let (tcp, place, arrived) = posts.into_parts();
        Self { tcp, place, arrived, shared, metrics, header_timeout, write_timeout, head: None, write: None }
    }

    /// The socket, and what was read of it that hyper has not taken.
    pub(super) fn into_parts(self) -> (TcpStream, Place, Bytes) {
        (self.tcp, self.place, self.arrived)
    }

    /// Fails once the head took too long.
    fn poll_head(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if !self.shared.is(Phase::Head) {
            self.head = None;
            return Ok(());
        }
        let deadline = self.header_timeout;
        let timer = self.head.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + deadline)));
        overdue(timer, context, &self.metrics, Limit::RequestTime)
    }

    /// Notes whether a write got on; fails once the kernel has taken nothing for too long.
    fn written(&mut self, outcome: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = &outcome {
            self.metrics.sent_bytes.inc_by(*written.as_ref().unwrap_or(&0) as u64);
            self.write = None;
            return outcome;
        }
        let deadline = self.write_timeout;
        let timer = self.write.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + deadline)));
        match overdue(timer, context, &self.metrics, Limit::WriteTime) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

fn overdue(timer: &mut Pin<Box<Sleep>>, context: &mut Context<'_>, metrics: &Metrics, limit: Limit) -> io::Result<()> {
    if timer.as_mut().poll(context).is_pending() {
        return Ok(());
    }
    metrics.limit(limit);
    Err(io::ErrorKind::TimedOut.into())
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = if self.arrived.is_empty() {
            let outcome = Pin::new(&mut self.tcp).poll_read(context, buf);
            self.metrics.received_bytes.inc_by((buf.filled().len() - before) as u64);
            outcome
        } else {
            let length = self.arrived.len().min(buf.remaining());
            buf.put_slice(&self.arrived.split_to(length));
            if self.arrived.is_empty() {
                self.arrived = Bytes::new();
            }
            Poll::Ready(Ok(()))
        };
        if buf.filled().len() > before && self.shared.is(Phase::Idle) {
            self.shared.set(Phase::Head);
        }
        match self.poll_head(context) {
            Ok(()) => outcome,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.tcp).poll_write(context, buf);
        self.written(outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.tcp).poll_write_vectored(context, bufs);
        self.written(outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.tcp).poll_flush(context);
        if let Poll::Ready(Ok(())) = outcome {
            self.shared.flushed();
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
