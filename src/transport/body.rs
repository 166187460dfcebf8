//! Reads a request's body within its bounds, and finds the messages in it.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt};
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, StatusCode};
use warp::reply::Response;

use super::{Web, reply};
use crate::metrics::Limit;

/// Bytes of an oversize body that are read and thrown away, so that the peer gets to read why.
const DRAIN_BYTES: usize = 8 << 20;
/// How long they are waited for.
const DRAIN_TIME: Duration = Duration::from_secs(2);

impl Web {
    /// The whole body, or the answer that says why not.
    pub(super) async fn read_body<S, B, E>(&self, body: S, declared: Option<u64>) -> Result<Bytes, Response>
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        let limit = self.settings().max_body_bytes;
        let mut body = std::pin::pin!(body);
        let mut collected = Vec::with_capacity(declared.map_or(0, |length| (length as usize).min(limit)));
        let too_large = || {
            let text = format!("Payload too large: the limit is {limit} bytes");
            reply::plain(StatusCode::PAYLOAD_TOO_LARGE, text)
        };
        let read = async {
            if declared.is_some_and(|length| length > limit as u64) {
                return Err(too_large());
            }
            while let Some(chunk) = body.next().await {
                let mut chunk = chunk.map_err(|_| reply::bad_request())?;
                if collected.len() + chunk.remaining() > limit {
                    return Err(too_large());
                }
                while chunk.has_remaining() {
                    let bytes = chunk.chunk();
                    collected.extend_from_slice(bytes);
                    let taken = bytes.len();
                    chunk.advance(taken);
                }
            }
            Ok(())
        };
        match tokio::time::timeout(self.settings().body_timeout, read).await {
            Ok(Ok(())) => Ok(collected.into()),
            Ok(Err(response)) => {
                if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    self.server().metrics().limit(Limit::Body);
                    drain(body).await;
                }
                Err(closing(response))
            }
            Err(_) => {
                self.server().metrics().limit(Limit::RequestTime);
                Err(closing(reply::plain(StatusCode::REQUEST_TIMEOUT, "Request body took too long")))
            }
        }
    }
}

/// The connection ends with this response: the rest of the body was not read.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}

async fn drain<S, B, E>(mut body: std::pin::Pin<&mut S>)
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    let mut drained = 0;
    let rest = async {
        while let Some(Ok(chunk)) = body.next().await {
            drained += chunk.remaining();
            if drained > DRAIN_BYTES {
                return;
            }
        }
    };
    // Running out of patience is as good as reaching the end.
    let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
}

/// The message text in a POST's body (wire contract, 1.2).
pub(super) enum Posted<'a> {
    /// JSON text.
    Messages(Cow<'a, [u8]>),
    /// Nothing usable.
    Nothing,
}

/// Finds the messages: the body itself if it is JSON by its type, else the form field `message`. A body without a
/// content type and without an origin that looks like JSON is JSON: python clients send that, browsers cannot.
pub(super) fn posted<'a>(headers: &HeaderMap, body: &'a [u8]) -> Posted<'a> {
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let is_json = match content_type {
        Some(kind) => kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"),
        None => !headers.contains_key(ORIGIN) && matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')),
    };
    if is_json {
        return Posted::Messages(Cow::Borrowed(body));
    }
    let mut message = None;
    for (name, value) in form_urlencoded::parse(body) {
        match &*name {
            "message" if message.is_none() => message = Some(value),
            "jsonp" if !super::answer::is_callback(&value) => return Posted::Nothing,
            _ => {}
        }
    }
    match message {
        Some(Cow::Borrowed(text)) => Posted::Messages(Cow::Borrowed(text.as_bytes())),
        Some(Cow::Owned(text)) => Posted::Messages(Cow::Owned(text.into_bytes())),
        None => Posted::Nothing,
    }
}
