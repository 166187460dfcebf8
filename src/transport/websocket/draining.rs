//! A TCP stream that collects what is written to it until the flush, and keeps no memory afterwards.
//!
//! The codec's own write buffer keeps the size of the largest burst for the life of the connection. It is switched off,
//! and this one is freed with every flush.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub(super) struct Draining {
    tcp: TcpStream,
    /// What was written since the last flush. Bounded by who writes (`wire.rs`).
    out: Vec<u8>,
    /// How much of it the kernel has.
    taken: usize,
    /// Bytes that the kernel has taken since the connection began.
    total: u64,
}

impl Draining {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, out: Vec::new(), taken: 0, total: 0 }
    }

    /// Bytes that the kernel has taken since the connection began: whether a slow peer gets on.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

impl AsyncRead for Draining {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Draining {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, out, taken, total } = &mut *self;
        while let Some(rest) = out.get(*taken..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *tcp).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    *taken += count;
                    *total += count as u64;
                }
            }
        }
        (*out, *taken) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
