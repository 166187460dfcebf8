//! Long-polling, same origin or not: messages in a POST, answers as JSON.

use bytes::Buf;
use futures_util::Stream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use warp::reply::Response;

use super::answer::Wire;
use super::body::{Posted, posted};
use super::reply::{Answering, Later};
use super::{Arrival, Mount, Web, cors, reply};
use crate::server::Transport;

impl Web {
    /// A POST below a mount.
    pub(super) async fn post<S, B, E>(&self, arrival: &Arrival, mount: &Mount, body: S) -> Response
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        let headers = &*arrival.headers;
        match Box::pin(self.read_body(body, content_length(headers))).await {
            Ok(body) => Later::response(self.post_in_whole(arrival, mount, &body)),
            Err(mut response) => {
                cors::allow(headers, &mut response);
                response
            }
        }
    }

    /// A POST below a mount whose body is here.
    pub(super) fn post_in_whole(&self, arrival: &Arrival, mount: &Mount, body: &[u8]) -> Answering {
        let headers = &*arrival.headers;
        match posted(headers, body) {
            Posted::Messages(json) => self.answer(arrival, mount, Transport::LongPolling, &json, Wire::Json),
            Posted::Nothing => {
                let mut response = self.malformed("no messages in the body");
                cors::allow(headers, &mut response);
                reply::at_once(response)
            }
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    reply::text(headers, CONTENT_LENGTH)?.parse().ok()
}
