//! What a response can ask of the listener beyond its bytes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use warp::reply::Response;

use crate::session::Receipt;

/// In a response's extensions: close the connection instead of sending the response.
#[derive(Debug, Clone, Copy)]
pub struct Hangup;

/// In a response's extensions: receipts of what the body carries. The listener takes them once the body was written
/// to the connection completely; receipts that nobody takes give their messages back.
#[derive(Clone)]
pub struct OnSent(Arc<Mutex<Vec<Receipt>>>);

impl OnSent {
    pub(super) fn new(receipts: Vec<Receipt>) -> Self {
        Self(Arc::new(Mutex::new(receipts)))
    }

    /// The body is out.
    pub fn sent(&self) {
        let receipts = std::mem::take(&mut *self.0.lock());
        receipts.into_iter().for_each(Receipt::written);
    }
}

/// An answer to come. Whoever has it may forget the request: what is needed of it is in here.
pub type Answering = BoxFuture<'static, Response>;

/// In a response's extensions: the real response is still to come. What routing holds of the request, its headers and
/// the buffer they lie in, is gone by the time that it is waited for: a held poll keeps none of it.
#[derive(Clone)]
pub struct Later(Arc<Mutex<Option<Answering>>>);

impl Later {
    /// A placeholder for an answer to come.
    pub(super) fn response(answering: Answering) -> Response {
        let mut response = Response::default();
        response.extensions_mut().insert(Self(Arc::new(Mutex::new(Some(answering)))));
        response
    }

    /// The response to come; nothing if it was taken before.
    pub fn take(self) -> Option<Answering> {
        self.0.lock().take()
    }
}

/// An answer that is here already.
pub(super) fn at_once(response: Response) -> Answering {
    Box::pin(std::future::ready(response))
}

/// A response with a body and a status.
pub(super) fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into().into());
    *response.status_mut() = status;
    if !content_type.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// The answer to everything that holds no Bayeux messages.
pub(super) fn bad_request() -> Response {
    plain(StatusCode::BAD_REQUEST, "Bad request")
}

/// A text for people.
pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response {
    response(status, "text/plain; charset=utf-8", text)
}

/// Headers of every Bayeux answer.
pub(super) fn no_store(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Closes the connection without an answer.
pub(super) fn hangup() -> Response {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, "");
    response.extensions_mut().insert(Hangup);
    response
}

/// A header's text, if it is text.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
