//! Long-polling, same origin or not: messages in a POST, answers as JSON.

use bytes::Buf;
use futures_util::Stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::body::{Posted, posted};
use super::{Arrival, Mount, Web, cors, reply};
use crate::bayeux::message::{self, ParseError};
use crate::metrics::Limit;
use crate::server::{HttpOutcome, RequestInfo, Transport};

impl Web {
    /// A POST below a mount.
    pub(super) async fn post<S, B, E>(&self, arrival: &Arrival, mount: &Mount, headers: HeaderMap, body: S) -> Response
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        let mut response = match self.read_body(body, content_length(&headers)).await {
            Ok(body) => match posted(&headers, &body) {
                Posted::Messages(json) => {
                    self.answer(arrival, mount, &headers, Transport::LongPolling, &json, Wire::Json).await
                }
                Posted::Nothing => self.malformed("no messages in the body"),
            },
            Err(response) => response,
        };
        cors::allow(&headers, &mut response);
        response
    }

    /// Processes JSON text and writes the answer as `wire` wants it.
    pub(super) async fn answer(
        &self,
        arrival: &Arrival,
        mount: &Mount,
        headers: &HeaderMap,
        transport: Transport,
        json: &[u8],
        wire: Wire<'_>,
    ) -> Response {
        let messages = match message::parse(json, &self.settings().batch) {
            Ok(messages) => messages,
            Err(error) => return self.unparsable(&error),
        };
        let headers = if self.server().has_extensions() { headers.clone() } else { HeaderMap::new() };
        let request =
            RequestInfo { transport, dialect: mount.dialect(), headers, peer: Some(arrival.peer), internal: false };
        match self.server().handle_request(&request, messages).await {
            HttpOutcome::Reply(answer) => {
                let mut response = wire.response(answer.body);
                if !answer.receipts.is_empty() {
                    response.extensions_mut().insert(reply::OnSent::new(answer.receipts));
                }
                response
            }
            HttpOutcome::Hangup => reply::hangup(),
            HttpOutcome::Unavailable => reply::plain(StatusCode::SERVICE_UNAVAILABLE, "Storage unavailable, try again"),
        }
    }

    pub(super) fn malformed(&self, why: &str) -> Response {
        self.server().metrics().malformed.inc();
        tracing::debug!(why, "bad request");
        reply::bad_request()
    }

    fn unparsable(&self, error: &ParseError) -> Response {
        match error {
            ParseError::TooMany(_) => {
                self.server().metrics().limit(Limit::Batch);
                reply::plain(StatusCode::PAYLOAD_TOO_LARGE, sentence(error))
            }
            ParseError::TooDeep(_) => {
                self.server().metrics().limit(Limit::Depth);
                reply::plain(StatusCode::BAD_REQUEST, sentence(error))
            }
            _ => self.malformed(&error.to_string()),
        }
    }
}

/// An error's text as a sentence for people.
pub(super) fn sentence(error: &ParseError) -> String {
    let text = error.to_string();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    reply::text(headers, CONTENT_LENGTH)?.parse().ok()
}

/// The form of an answer.
pub(super) enum Wire<'a> {
    /// A JSON document.
    Json,
    /// A script that calls this function.
    Script(&'a str),
}

impl Wire<'_> {
    fn response(&self, body: Vec<u8>) -> Response {
        let mut response = match self {
            Self::Json => reply::response(StatusCode::OK, "application/json; charset=utf-8", body),
            Self::Script(callback) => super::callback::script(callback, &body),
        };
        reply::no_store(response.headers_mut());
        response
    }
}
