//! HTTP connections that are kept for the next request, for each address of the target; and one request on one of them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::http;
use super::local::{ClientError, Local};

/// The least room for a read, in bytes.
const ROOM: usize = 64 * 1024;

/// Connections that wait for a request, for each address.
pub(super) struct Pools(RefCell<Vec<Vec<TcpStream>>>);

impl Pools {
    pub(super) fn new(addresses: usize) -> Self {
        Self(RefCell::new((0..addresses).map(|_| Vec::new()).collect()))
    }

    fn take(&self, address: usize) -> Option<TcpStream> {
        self.0.borrow_mut()[address].pop()
    }

    fn put(&self, address: usize, stream: TcpStream) {
        self.0.borrow_mut()[address].push(stream);
    }

    /// Closes all, without leaving ports in TIME_WAIT.
    pub(super) fn clear(&self) {
        for stream in self.0.borrow_mut().iter_mut().flat_map(std::mem::take) {
            // Fails only if the socket is no more.
            let _ = stream.set_zero_linger();
        }
    }
}

/// Closes a stream without leaving a port in TIME_WAIT, unless it is taken out.
struct Guard(Option<TcpStream>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            // Fails only if the socket is no more.
            let _ = stream.set_zero_linger();
        }
    }
}

/// Posts JSON to a random address of the target and gives the body of the answer to `take`.
pub(super) async fn post(
    local: &Local,
    body: &[u8],
    patience: Duration,
    what: &'static str,
    mut take: impl FnMut(&[u8]),
) -> Result<(), ClientError> {
    let (at, endpoint) = local.endpoint();
    let mut request = Vec::with_capacity(body.len() + 200);
    http::post(&mut request, endpoint, body);
    if let Some(stream) = local.pools.take(at) {
        match timeout(patience, exchange(local, at, stream, &request, &mut take)).await {
            Ok(Ok(())) => return Ok(()),
            // The server closed a kept connection while the request was on its way.
            Ok(Err(ClientError::Closed | ClientError::Io(_))) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(ClientError::Late(what)),
        }
    }
    let stream = local.dial(endpoint.address).await?;
    timeout(patience, exchange(local, at, stream, &request, &mut take)).await.map_err(|_| ClientError::Late(what))?
}

async fn exchange(
    local: &Local,
    at: usize,
    stream: TcpStream,
    request: &[u8],
    take: &mut impl FnMut(&[u8]),
) -> Result<(), ClientError> {
    let mut guard = Guard(Some(stream));
    let Some(stream) = &mut guard.0 else { return Err(ClientError::Closed) };
    stream.write_all(request).await?;
    let mut rest: Vec<u8> = Vec::new();
    let keeps = loop {
        let answer = poll_fn(|cx| {
            let mut buffer = local.buffer.borrow_mut();
            if buffer.len() < rest.len() + ROOM {
                buffer.resize(rest.len() + ROOM, 0);
            }
            buffer[..rest.len()].copy_from_slice(&rest);
            let mut free = ReadBuf::new(&mut buffer[rest.len()..]);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut free))?;
            let read = free.filled().len();
            if read == 0 {
                return Poll::Ready(Err(ClientError::Closed));
            }
            let bytes = &buffer[..rest.len() + read];
            match http::response(bytes)? {
                Some(response) if response.status == 200 => {
                    take(&response.body);
                    Poll::Ready(Ok(Some(response.keeps)))
                }
                Some(response) => Poll::Ready(Err(ClientError::Status(response.status))),
                None => {
                    rest = bytes.to_vec();
                    Poll::Ready(Ok(None))
                }
            }
        });
        if let Some(keeps) = answer.await? {
            break keeps;
        }
    };
    if keeps && let Some(stream) = guard.0.take() {
        local.pools.put(at, stream);
    }
    Ok(())
}
