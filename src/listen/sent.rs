//! A response's body that tells the connection when it has been handed over completely.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

use super::connection::Shared;
use crate::transport::OnSent;

/// Wraps the body of a response. Dropped before its end, its receipts give their messages back.
pub(super) struct SentBody<B> {
    body: B,
    shared: Arc<Shared>,
    receipts: Option<OnSent>,
    ended: bool,
}

impl<B: Body> SentBody<B> {
    /// Takes the receipts out of the response and follows its body.
    pub(super) fn wrap(mut response: Response<B>, shared: Arc<Shared>) -> Response<Self> {
        let receipts = response.extensions_mut().remove::<OnSent>();
        response.map(|body| {
            let mut body = Self { body, shared, receipts, ended: false };
            if body.body.is_end_stream() {
                body.end();
            }
            body
        })
    }

    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            self.shared.response_ends(self.receipts.take());
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for SentBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || (matches!(frame, Some(Ok(_))) && self.body.is_end_stream()) {
            self.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
