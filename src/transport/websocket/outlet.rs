//! The way out of a socket: frames, in one buffer, to the kernel. Shared by the connection's task, which answers and
//! finishes what the kernel does not take at once, and the hub, which writes messages straight from the fan-out.
//!
//! The lock is taken *before* the messages are taken from their outbox, so that they leave in that order whoever writes.
//! Nothing waits under it: writes do not block. What is written is freed at once: a burst leaves no memory behind.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

use super::pings::Pings;
use crate::engine::{Delivery, Form, Reach};
use crate::metrics::Metrics;
use crate::session::{Attachment, Outlet};

/// Bytes that are taken from an outbox for one write (one message may exceed it).
pub(super) const TAKE: usize = 64 * 1024;

/// Bytes that are read from the kernel at once, into room that all sockets of a thread share.
const READ_AT_ONCE: usize = 8 * 1024;

/// First byte of a text frame that is a whole message (RFC 6455, 5.2).
const TEXT: u8 = 0x81;
/// First byte of a ping.
const PING: u8 = 0x89;

/// The write half of a socket.
pub(super) struct SocketOutlet {
    out: Mutex<Out>,
    /// The connection's task, to be woken when it has to finish a write, or to send a ping soon.
    task: AtomicWaker,
    metrics: Arc<Metrics>,
}

struct Out {
    tcp: OwnedWriteHalf,
    /// Frames that the kernel does not have yet. Bounded: nothing is taken from an outbox before it is empty, and nothing
    /// is read from a peer for which too much is here.
    bytes: Vec<u8>,
    /// How much of it the kernel has.
    taken: usize,
    /// Bytes that the kernel has taken since the connection began.
    total: u64,
    /// No more messages: the socket is being closed.
    closed: bool,
    /// Nothing can be written any more.
    abandoned: bool,
    pings: Pings,
    /// The task has to look: messages were written that want a ping, or that the kernel did not take.
    news: bool,
}

impl Out {
    fn pending(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Hands `frames` to the kernel, and keeps what it does not take.
    fn write_now(&mut self, frames: &[u8]) -> usize {
        // An error shows again when the task writes the rest, and ends the connection.
        let written = self.tcp.try_write(frames).unwrap_or(0);
        self.total += written as u64;
        if let Some(rest) = frames.get(written..).filter(|rest| !rest.is_empty()) {
            self.bytes.extend_from_slice(rest);
            self.news = true;
        }
        written
    }
}

impl SocketOutlet {
    pub(super) fn new(tcp: OwnedWriteHalf, metrics: Arc<Metrics>) -> Self {
        let out = Out {
            tcp,
            bytes: Vec::new(),
            taken: 0,
            total: 0,
            closed: false,
            abandoned: false,
            pings: Pings::new(Instant::now()),
            news: false,
        };
        Self { out: Mutex::new(out), task: AtomicWaker::new(), metrics }
    }

    /// Bytes that the kernel lacks.
    pub(super) fn pending(&self) -> usize {
        self.out.lock().pending()
    }

    /// Bytes that the kernel has taken since the connection began: whether a slow peer gets on.
    pub(super) fn total(&self) -> u64 {
        self.out.lock().total
    }

    /// Queues a text frame.
    pub(super) fn queue(&self, json: &[u8]) {
        let mut out = self.out.lock();
        if !out.abandoned {
            frame(&mut out.bytes, TEXT, json);
        }
    }

    /// Sends a ping. `sent` is asked under the lock, so that it tells of exactly the messages whose frames precede the ping.
    pub(super) fn ping(&self, now: Instant, sent: impl FnOnce() -> Reach) {
        let mut guard = self.out.lock();
        let out = &mut *guard;
        if !out.abandoned {
            frame(&mut out.bytes, PING, out.pings.send(now, sent).as_bytes());
        }
    }

    /// The pings, under the lock.
    pub(super) fn pings<T>(&self, look: impl FnOnce(&mut Pings) -> T) -> T {
        look(&mut self.out.lock().pings)
    }

    /// The peer is gone: whatever is queued, or will be, is dropped.
    pub(super) fn abandon(&self) {
        let mut out = self.out.lock();
        (out.closed, out.abandoned, out.bytes, out.taken) = (true, true, Vec::new(), 0);
    }

    /// Whether that was done.
    pub(super) fn is_abandoned(&self) -> bool {
        self.out.lock().abandoned
    }

    /// Lets no more messages through.
    pub(super) fn close(&self) {
        self.out.lock().closed = true;
    }

    /// Whether the task has to look. It is woken when that changes.
    pub(super) fn poll_news(&self, context: &Context<'_>) -> bool {
        // Registered before the look, so that no wake-up is missed.
        self.task.register(context.waker());
        std::mem::take(&mut self.out.lock().news)
    }

    /// Hands over what is queued, as far as the kernel takes it now; the next turn does the rest.
    pub(super) fn flush_now(&self) {
        let mut out = self.out.lock();
        if out.taken == 0 && !out.bytes.is_empty() {
            let bytes = std::mem::take(&mut out.bytes);
            match out.tcp.try_write(&bytes) {
                Ok(count) if count == bytes.len() => {
                    out.total += count as u64;
                    self.metrics.sent_bytes.inc_by(count as u64);
                }
                outcome => {
                    // An error shows again, and ends the connection, in the next turn.
                    out.taken = outcome.unwrap_or(0);
                    out.total += out.taken as u64;
                    self.metrics.sent_bytes.inc_by(out.taken as u64);
                    out.bytes = bytes;
                }
            }
        }
    }

    /// Hands over what is queued.
    pub(super) fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut guard = self.out.lock();
        let out = &mut *guard;
        while let Some(rest) = out.bytes.get(out.taken..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut out.tcp).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    out.taken += count;
                    out.total += count as u64;
                    self.metrics.sent_bytes.inc_by(count as u64);
                }
            }
        }
        (out.bytes, out.taken) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

impl Outlet for SocketOutlet {
    fn push(&self, source: &Attachment, scratch: &mut Vec<u8>) {
        let mut guard = self.out.lock();
        let out = &mut *guard;
        if out.closed || out.pending() > 0 {
            // The task finishes that first, and then looks for more.
            return;
        }
        scratch.clear();
        let put = |delivery: &Delivery, form| match form {
            Form::Plain => frame(scratch, TEXT, &delivery.array),
            _ => frame(scratch, TEXT, &delivery.array_as(form)),
        };
        let carries = out.pings.may_be_carried();
        let mut covered = None;
        let count = source.take_live(TAKE, put, |sent| covered = carries.then(|| sent.clone()));
        if count == 0 {
            return;
        }
        out.news |= out.pings.note_written();
        if let Some(covered) = covered {
            frame(scratch, PING, out.pings.send(Instant::now(), || covered).as_bytes());
        }
        let written = out.write_now(scratch);
        let news = out.news;
        drop(guard);
        self.metrics.delivered.inc_by(count);
        self.metrics.sent_bytes.inc_by(written as u64);
        if news {
            self.task.wake();
        }
    }
}

/// Appends a frame as a server sends it: not masked.
fn frame(bytes: &mut Vec<u8>, first: u8, payload: &[u8]) {
    bytes.reserve(payload.len() + 10);
    bytes.push(first);
    match payload.len() {
        // The casts lose nothing: each arm's bound is in its pattern.
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=65_535 => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
}

thread_local! {
    /// What was just read; nothing stays here.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_AT_ONCE].into());
}

/// The socket as the codec sees it: it reads, and what it writes (pongs, close frames) joins the other frames.
pub(super) struct Duplex {
    read: OwnedReadHalf,
    /// What was read and did not fit into the codec's buffer, which is small: a burst of frames is read at once all the same.
    rest: Bytes,
    outlet: Arc<SocketOutlet>,
}

impl Duplex {
    pub(super) fn new(read: OwnedReadHalf, outlet: Arc<SocketOutlet>) -> Self {
        Self { read, rest: Bytes::new(), outlet }
    }

    fn take_rest(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..count]);
        self.rest.advance(count);
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.rest.is_empty() {
            // As the kernel's would: who reads on and on lets others run now and then.
            ready!(tokio::task::coop::poll_proceed(context)).made_progress();
            self.take_rest(buffer);
            return Poll::Ready(Ok(()));
        }
        READ.with_borrow_mut(|room| {
            let mut room = ReadBuf::new(room);
            ready!(Pin::new(&mut self.read).poll_read(context, &mut room))?;
            let read = room.filled();
            self.outlet.metrics.received_bytes.inc_by(read.len() as u64);
            let (now, later) = read.split_at(read.len().min(buffer.remaining()));
            buffer.put_slice(now);
            if !later.is_empty() {
                self.rest = Bytes::copy_from_slice(later);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncWrite for Duplex {
    /// Takes everything, so that a frame of the codec is never divided.
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut out = self.outlet.out.lock();
        if !out.abandoned {
            out.bytes.extend_from_slice(bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// That nothing can be written is the connection's to find out: the codec would read no more.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outlet.poll_flush(context).map(|_| Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.outlet.poll_flush(context))?;
        Pin::new(&mut self.outlet.out.lock().tcp).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;
    use tokio_tungstenite::tungstenite::{Message, WebSocket};

    use super::*;

    /// Each way to write a length, and both sides of each border, as another implementation reads it.
    #[test]
    fn frames_are_read_by_others() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 200_000] {
            let payload = vec![b'x'; length];
            let mut bytes = Vec::new();
            frame(&mut bytes, TEXT, &payload);
            frame(&mut bytes, PING, b"7");
            let mut socket = WebSocket::from_raw_socket(io::Cursor::new(bytes), Role::Client, None);
            assert_eq!(socket.read().expect("a frame").into_data(), payload, "{length} bytes");
            assert_eq!(socket.read().expect("a frame"), Message::Ping("7".into()));
        }
    }
}
