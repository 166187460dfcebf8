//! Callback-polling (JSONP): messages in a GET's query, answers as a script.

use std::borrow::Cow;

use http::header::{CONTENT_DISPOSITION, HeaderValue};
use http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::polling::Wire;
use super::{Arrival, Mount, Web, cors, reply};
use crate::server::Transport;

/// The function that is called when the request names none.
const DEFAULT_CALLBACK: &str = "jsonpcallback";

impl Web {
    /// A GET below a mount that asks for no stream.
    pub(super) async fn get(&self, arrival: &Arrival, mount: &Mount, headers: &HeaderMap) -> Response {
        let (mut message, mut callback) = (None, None);
        for (name, value) in form_urlencoded::parse(arrival.uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "message" if message.is_none() => message = Some(value),
                "jsonp" if callback.is_none() => callback = Some(value),
                _ => {}
            }
        }
        let callback = callback.filter(|name| !name.is_empty()).unwrap_or(Cow::Borrowed(DEFAULT_CALLBACK));
        let mut response = match message {
            Some(message) if is_name(&callback) => {
                let wire = Wire::Script(&callback);
                self.answer(arrival, mount, headers, Transport::CallbackPolling, message.as_bytes(), wire).await
            }
            Some(_) => self.malformed("the callback is not a function's name"),
            None => self.malformed("no message in the query"),
        };
        cors::allow(headers, &mut response);
        response
    }
}

/// `[a-z_$][a-z0-9_$]*(\.[a-z_$][a-z0-9_$]*)*`, either case: nothing else gets into the script.
pub(super) fn is_name(callback: &str) -> bool {
    callback.split('.').all(|part| {
        let bytes = part.as_bytes();
        let letter = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'$');
        bytes.first().is_some_and(letter) && bytes.iter().all(|byte| letter(byte) || byte.is_ascii_digit())
    })
}

/// `/**/callback(json);` — the comment and the attachment header keep the answer from being taken for something else
/// (Rosetta Flash), and the two line separators that JSON allows but scripts do not are escaped.
pub(super) fn script(callback: &str, json: &[u8]) -> Response {
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
            assert!(is_name(name), "{name}");
        }
        for name in ["", "4", "a.", ".a", "a..b", "a b", "a(b", "a;b", "a\n", "ä", "a[0]", "a.4"] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
