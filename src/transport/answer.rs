//! The way of a request's messages through the server, and the two wire forms of its answer. Used by both kinds of
//! polling.

use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, HeaderValue};
use warp::reply::Response;

use super::reply::Answering;
use super::{Arrival, Mount, Web, cors, reply};
use crate::bayeux::message::{self, ParseError};
use crate::metrics::Limit;
use crate::server::{HttpOutcome, RequestInfo, Transport};

impl Web {
    /// Processes JSON text and writes the answer as `wire` wants it, some time later: this takes from the request what
    /// is needed until then.
    pub(super) fn answer(
        &self,
        arrival: &Arrival,
        mount: &Mount,
        transport: Transport,
        json: &[u8],
        wire: Wire,
    ) -> Answering {
        let headers = &*arrival.headers;
        let messages = match message::parse(json, &self.settings().batch) {
            Ok(messages) => messages,
            Err(error) => {
                let mut response = self.unparsable(&error);
                cors::allow(headers, &mut response);
                return reply::at_once(response);
            }
        };
        let origin = cors::origin(headers);
        let headers = self.kept(headers);
        let request = RequestInfo {
            id: arrival.id,
            transport,
            dialect: mount.dialect(),
            headers,
            peer: Some(arrival.peer),
            internal: false,
        };
        let server = self.server().clone();
        Box::pin(async move {
            let mut response = match server.handle_request(&request, messages).await {
                HttpOutcome::Reply(answer) => {
                    let mut response = wire.response(answer.body);
                    if !answer.receipts.is_empty() {
                        response.extensions_mut().insert(reply::OnSent::new(answer.receipts));
                    }
                    response
                }
                HttpOutcome::Hangup => reply::hangup(),
                HttpOutcome::Unavailable => {
                    reply::plain(StatusCode::SERVICE_UNAVAILABLE, "Storage unavailable, try again")
                }
            };
            cors::allow_origin(origin, &mut response);
            response
        })
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

/// The form of an answer.
pub(super) enum Wire {
    /// A JSON document.
    Json,
    /// A script that calls this function.
    Script(String),
}

impl Wire {
    fn response(&self, body: Vec<u8>) -> Response {
        let mut response = match self {
            Self::Json => reply::response(StatusCode::OK, "application/json; charset=utf-8", body),
            Self::Script(callback) => script(callback, &body),
        };
        reply::no_store(response.headers_mut());
        response
    }
}

/// `[a-z_$][a-z0-9_$]*(\.[a-z_$][a-z0-9_$]*)*`, either case: nothing else gets into the script.
pub(super) fn is_callback(callback: &str) -> bool {
    callback.split('.').all(|part| {
        let bytes = part.as_bytes();
        let letter = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$');
        bytes.first().is_some_and(letter) && bytes.iter().all(|byte| letter(byte) || byte.is_ascii_digit())
    })
}

/// `/**/callback(json);` — the comment and the attachment header keep the answer from being taken for something else
/// (Rosetta Flash), and the two line separators that JSON allows but scripts do not are escaped.
fn script(callback: &str, json: &[u8]) -> Response {
    let json = String::from_utf8_lossy(json).replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
    let body = format!("/**/{callback}({json});");
    let mut response = reply::response(StatusCode::OK, "text/javascript; charset=utf-8", body);
    response.headers_mut().insert(CONTENT_DISPOSITION, HeaderValue::from_static("attachment; filename=f.txt"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callback_names() {
        for name in ["cb", "_", "$", "a.b.c", "Faye.Transport.jsonp1", "__jsonp1__"] {
            assert!(is_callback(name), "{name}");
        }
        for name in ["", "4", "a.", ".a", "a..b", "a b", "a(b", "a;b", "a\n", "ä", "a[0]", "a.4"] {
            assert!(!is_callback(name), "{name:?}");
        }
    }
}
