//! HTTP/1.1 by hand, as little as a POST needs that came in one piece: finds one in what has arrived, and writes the head
//! of a response. Used by `posts`; everything else is hyper's.

use std::io::Write;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Uri, response};

/// Headers of a request that is read here.
const MAX_HEADERS: usize = 48;
/// Room for a usual response's head, in bytes.
const USUAL_HEAD: usize = 320;

/// Takes a complete POST off the front of `arrived`. `None`, and nothing taken, when there is anything to it that hyper
/// does better: an incomplete head or body, another method or version, a malformed head, a body without a length, an
/// expectation, a wish about the connection.
pub(super) fn take_post(arrived: &mut Bytes) -> Option<Request<Bytes>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut fields);
    let Ok(httparse::Status::Complete(head_length)) = head.parse(arrived) else { return None };
    let (Some("POST"), Some(1), Some(target)) = (head.method, head.version, head.path) else { return None };
    if !target.starts_with('/') {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let plain = match name {
            CONNECTION => field.value.eq_ignore_ascii_case(b"keep-alive"),
            CONTENT_LENGTH => !headers.contains_key(CONTENT_LENGTH),
            TRANSFER_ENCODING | UPGRADE | EXPECT => false,
            _ => true,
        };
        if !plain {
            return None;
        }
        headers.append(name, HeaderValue::from_maybe_shared(arrived.slice_ref(field.value)).ok()?);
    }
    let end = head_length.checked_add(length(headers.get(CONTENT_LENGTH)?)?)?;
    if end > arrived.len() {
        return None;
    }
    let uri = Uri::from_maybe_shared(arrived.slice_ref(target.as_bytes())).ok()?;
    let mut request = Request::new(arrived.slice(head_length..end));
    (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (Method::POST, uri, headers);
    // What is left over must not keep the whole buffer when it is nothing.
    *arrived = if end == arrived.len() { Bytes::new() } else { arrived.slice(end..) };
    Some(request)
}

/// Digits alone (RFC 9110, 8.6): `parse` would also take a sign.
fn length(value: &HeaderValue) -> Option<usize> {
    let text = value.to_str().ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The head of a response, up to its empty line, with `room` bytes behind it. `length` is that of the body in bytes; a body
/// without one ends with the connection, as does everything that says `close`.
pub(super) fn response_head(
    parts: &response::Parts,
    length: Option<u64>,
    close: bool,
    now: SystemTime,
    room: usize,
) -> Vec<u8> {
    let mut head = Vec::with_capacity(USUAL_HEAD + room);
    let reason = parts.status.canonical_reason().unwrap_or("Unknown");
    // Writing into a vector cannot fail.
    let _ = write!(head, "HTTP/1.1 {} {reason}\r\n", parts.status.as_str());
    let ours = |name: &HeaderName| matches!(*name, CONNECTION | CONTENT_LENGTH | TRANSFER_ENCODING);
    for (name, value) in parts.headers.iter().filter(|(name, _)| !ours(name)) {
        for bytes in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(bytes);
        }
    }
    if let Some(length) = length {
        let _ = write!(head, "content-length: {length}\r\n");
    }
    if close {
        head.extend_from_slice(b"connection: close\r\n");
    }
    if !parts.headers.contains_key(DATE) {
        let _ = write!(head, "date: {}\r\n", httpdate::HttpDate::from(now));
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn take(text: &str) -> (Option<Request<Bytes>>, Bytes) {
        let mut arrived = Bytes::copy_from_slice(text.as_bytes());
        (take_post(&mut arrived), arrived)
    }

    #[test]
    fn a_post_in_one_piece_is_taken() {
        let (request, rest) =
            take("POST /b?x=1 HTTP/1.1\r\nHost: a\r\nX: 1\r\nx: 2\r\nContent-Length: 3\r\n\r\n[1]POST");
        let request = request.expect("a complete POST");
        assert_eq!((request.method(), request.uri().to_string()), (&Method::POST, "/b?x=1".to_owned()));
        let values: Vec<_> = request.headers().get_all("x").iter().collect();
        assert_eq!(values, ["1", "2"]);
        assert_eq!((text(request.body()), text(&rest)), ("[1]".to_owned(), "POST".to_owned()));
        for connection in ["keep-alive", "Keep-Alive"] {
            let (request, rest) =
                take(&format!("POST / HTTP/1.1\r\nConnection: {connection}\r\nContent-Length: 0\r\n\r\n"));
            assert!(request.is_some() && rest.is_empty(), "{connection}");
        }
    }

    #[test]
    fn everything_else_is_left() {
        let long = format!("POST / HTTP/1.1\r\nContent-Length: 0\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
        for other in [
            "",
            "P",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n[1",
            "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "post / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
            "POST http://a/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST * HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: -0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0x0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0, 0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nUpgrade: websocket\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nConnection: keep-alive, upgrade\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nA b: c\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\nA: b\r\n c\r\n\r\n",
            &long,
        ] {
            let (request, rest) = take(other);
            assert!(request.is_none(), "{other:?}");
            assert_eq!(text(&rest), other);
        }
    }

    #[test]
    fn heads_of_responses() {
        let response = http::Response::builder()
            .status(413)
            .header("Content-Type", "text/plain")
            .header("Connection", "close")
            .header("Content-Length", "77")
            .body(())
            .expect("valid");
        let (parts, ()) = response.into_parts();
        let head = |length, close| text(&response_head(&parts, length, close, SystemTime::UNIX_EPOCH, 0));
        let start = "HTTP/1.1 413 Payload Too Large\r\ncontent-type: text/plain\r\n";
        let date = "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
        assert_eq!(head(Some(5), false), format!("{start}content-length: 5\r\n{date}"));
        assert_eq!(head(None, true), format!("{start}connection: close\r\n{date}"));
    }
}
