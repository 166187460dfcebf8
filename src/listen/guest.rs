//! A node as a service of another program's HTTP server: axum, warp, hyper, whatever speaks `tower_service`. The other
//! server owns the connections and their limits; sockets are taken from it as they are from our own listener.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tower_service::Service;
use warp::filters::BoxedFilter;

use super::answer;
use crate::transport::{Hangup, OnSent, Stream, TakeStream};

/// Everything that a node serves to clients, for `Router::fallback_service` and the like. Cheap to clone. Requests must keep
/// the path that clients use: it names the mount.
///
/// WebSockets need a server on plain TCP (`axum::serve` with a `TcpListener`, hyper's own connections); over anything else
/// clients use their other transports.
#[derive(Clone)]
pub struct NodeService {
    routes: BoxedFilter<(warp::reply::Response,)>,
    peer: SocketAddr,
}

impl NodeService {
    pub(crate) fn new(routes: BoxedFilter<(warp::reply::Response,)>) -> Self {
        Self { routes, peer: (Ipv4Addr::UNSPECIFIED, 0).into() }
    }

    /// The same for requests of this peer, whom extensions then see.
    #[must_use]
    pub fn from_peer(&self, peer: SocketAddr) -> Self {
        Self { routes: self.routes.clone(), peer }
    }
}

impl<B> Service<Request<B>> for NodeService
where
    B: Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<GuestBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (routes, peer) = (self.routes.clone(), self.peer);
        let mut request = request.map(|body| Shareable(Mutex::new(Box::pin(body))));
        let take: TakeStream = take_stream;
        request.extensions_mut().insert(take);
        async move {
            let mut response = answer(&routes, request, peer).await;
            let hangup = response.extensions_mut().remove::<Hangup>().is_some();
            let receipts = response.extensions_mut().remove::<OnSent>();
            Ok(response.map(|body| GuestBody { body, receipts, hangup }))
        }
        .boxed()
    }
}

/// A response's body. Receipts in it are served once the server has taken all of it; dropped before, the messages are given
/// back.
pub struct GuestBody {
    body: <warp::reply::Response as Parts>::Body,
    receipts: Option<OnSent>,
    /// The connection is to break instead of an answer.
    hangup: bool,
}

/// Names the type of a response's body.
trait Parts {
    type Body;
}

impl<B> Parts for Response<B> {
    type Body = B;
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.hangup {
            return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if (frame.is_none() || (matches!(frame, Some(Ok(_))) && self.body.is_end_stream()))
            && let Some(receipts) = self.receipts.take()
        {
            receipts.sent();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        !self.hangup && self.receipts.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // A length that is promised and not kept ends the connection.
        if self.hangup { SizeHint::with_exact(1) } else { self.body.size_hint() }
    }
}

/// A request's body that may be shared between threads, because one at a time has it.
struct Shareable<B>(Mutex<Pin<Box<B>>>);

impl<B: Body> Body for Shareable<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.0.get_mut().as_mut().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().size_hint()
    }
}

/// The socket of an upgraded connection: of hyper's own server, or of the one that hyper-util has for several protocols.
fn take_stream(upgraded: hyper::upgrade::Upgraded) -> Option<Stream> {
    let (tcp, read) = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (parts.io.into_inner(), parts.read_buf),
        Err(upgraded) => {
            let parts = hyper_util::server::conn::auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded).ok()?;
            (parts.io.into_inner(), parts.read_buf)
        }
    };
    // Small frames must not wait for each other; without it they only come later.
    let _ = tcp.set_nodelay(true);
    // Copied, not kept: the slice would pin the read buffer for the life of the socket.
    Some(Stream { tcp, first_bytes: Bytes::copy_from_slice(&read), place: Box::new(()) })
}
