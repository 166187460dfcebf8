//! The little HTTP/1.1 that a client needs: heads of requests, and answers as they lie in a buffer.

use std::borrow::Cow;
use std::io::Write;

use memchr::memmem;
use thiserror::Error;

use super::plan::Endpoint;

/// The longest head of an answer, in bytes.
const LONGEST_HEAD: usize = 64 * 1024;
/// The longest body of an answer, in bytes.
const LONGEST_BODY: usize = 64 * 1024 * 1024;

/// An answer that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum HttpError {
    /// Not HTTP/1.x, or no length.
    #[error("an answer that is not HTTP/1.1")]
    Malformed,
    /// More than is taken.
    #[error("an answer that is too large")]
    TooLarge,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response<'a> {
    pub status: u16,
    pub body: Cow<'a, [u8]>,
    /// The connection can be used again.
    pub keeps: bool,
    /// Bytes of head and body as they came.
    pub length: usize,
}

/// Appends a POST of JSON.
pub(super) fn post(out: &mut Vec<u8>, endpoint: &Endpoint, body: &[u8]) {
    let Endpoint { path, host, .. } = endpoint;
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    out.extend_from_slice(body);
}

/// The request for a WebSocket. Its key may be any: nothing here is a secret.
pub(super) fn upgrade(host: &str, path: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: d2VmdCBpcyBhIGJlbmNoIQ==\r\n\r\n"
    )
    .into_bytes()
}

struct Head {
    status: u16,
    length: Option<usize>,
    chunked: bool,
    closes: bool,
    /// Bytes, with the empty line.
    size: usize,
}

/// The status of an answer and the size of its head; `None` while it is not complete.
pub(super) fn status(bytes: &[u8]) -> Result<Option<(u16, usize)>, HttpError> {
    Ok(head(bytes)?.map(|head| (head.status, head.size)))
}

fn head(bytes: &[u8]) -> Result<Option<Head>, HttpError> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else {
        return if bytes.len() > LONGEST_HEAD { Err(HttpError::TooLarge) } else { Ok(None) };
    };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| HttpError::Malformed)?;
    let mut lines = text.split("\r\n");
    let first = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")).ok_or(HttpError::Malformed)?;
    let mut words = first.split(' ');
    let old = words.next() == Some("0");
    let status = words.next().and_then(|status| status.parse().ok()).ok_or(HttpError::Malformed)?;
    let mut head = Head { status, length: None, chunked: false, closes: old, size: end + 4 };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            head.length = Some(value.parse().map_err(|_| HttpError::Malformed)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            head.chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}

/// The answer at the beginning of `bytes`; `None` while it is not complete.
pub(super) fn response(bytes: &[u8]) -> Result<Option<Response<'_>>, HttpError> {
    let Some(head) = head(bytes)? else { return Ok(None) };
    let rest = &bytes[head.size..];
    let (body, length) = if head.chunked {
        match chunks(rest)? {
            Some((body, length)) => (Cow::Owned(body), length),
            None => return Ok(None),
        }
    } else {
        // Without a length the body would end with the connection, which no server here does.
        let length = head.length.ok_or(HttpError::Malformed)?;
        if length > LONGEST_BODY {
            return Err(HttpError::TooLarge);
        }
        match rest.get(..length) {
            Some(body) => (Cow::Borrowed(body), length),
            None => return Ok(None),
        }
    };
    Ok(Some(Response { status: head.status, body, keeps: !head.closes, length: head.size + length }))
}

/// A body in chunks, and how many bytes it took.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, HttpError> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line) = memmem::find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let text = std::str::from_utf8(&bytes[at..at + line]).map_err(|_| HttpError::Malformed)?;
        let size = text.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| HttpError::Malformed)?;
        if size > LONGEST_BODY || body.len() + size > LONGEST_BODY {
            return Err(HttpError::TooLarge);
        }
        at += line + 2;
        if bytes.len() < at + size + 2 {
            return Ok(None);
        }
        // Trailers are not expected: the last chunk ends with the line behind it.
        if &bytes[at + size..at + size + 2] != b"\r\n" {
            return Err(HttpError::Malformed);
        }
        body.extend_from_slice(&bytes[at..at + size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_split_at_every_byte() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 5\r\n\r\n[1,2]next";
        for at in 0..whole.len() - 4 {
            assert_eq!(response(&whole[..at]), Ok(None), "at {at}");
        }
        let answer = response(whole).unwrap().unwrap();
        assert_eq!((answer.status, &*answer.body, answer.keeps), (200, &b"[1,2]"[..], true));
        assert_eq!(answer.length, whole.len() - 4);
    }

    #[test]
    fn chunked_answers_split_at_every_byte() {
        let whole = b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
        for at in 0..whole.len() {
            assert_eq!(response(&whole[..at]), Ok(None), "at {at}");
        }
        let answer = response(whole).unwrap().unwrap();
        assert_eq!((answer.status, &*answer.body, answer.keeps), (503, &b"abc0123456789"[..], false));
        assert_eq!(answer.length, whole.len());
    }

    #[test]
    fn what_is_not_http() {
        for bytes in [&b"SSH-2.0\r\n\r\n"[..], b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\nuntil close"] {
            assert_eq!(response(bytes), Err(HttpError::Malformed));
        }
    }
}
