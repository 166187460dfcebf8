//! EventSource: a stream of events for a session; its meta messages come by POST.
//!
//! Every event has an id of epoch and position, so that a browser that reconnects says by itself what it has. The id
//! that opens the stream carries the epoch even when no event follows.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument;
use warp::reply::{Reply, Response};

use super::{Arrival, Mount, Web, cors, old_at, reply};
use crate::engine::{Cursor, Epoch, LastEvent, Link, Position, Progress, Reach, SessionId};
use crate::metrics::Moved;
use crate::server::{RequestInfo, Transport};
use crate::session::{AttachOutcome, End, Held, Step};

/// Bytes that are taken for the stream at once.
const TAKE: usize = 64 * 1024;
/// Pause after an engine call failed.
const RETRY: Duration = Duration::from_millis(500);

impl Web {
    /// A GET that accepts `text/event-stream`; the session is the last segment of its path.
    pub(super) async fn eventsource(&self, arrival: &Arrival, mount: &Mount) -> Response {
        let mut response = self.open_stream(arrival, mount).await;
        cors::allow(&arrival.headers, &mut response);
        response
    }

    async fn open_stream(&self, arrival: &Arrival, mount: &Mount) -> Response {
        let headers = &*arrival.headers;
        let session = SessionId::from(arrival.uri.path().rsplit('/').next().unwrap_or_default());
        let last_event = reply::text(headers, HeaderName::from_static("last-event-id")).and_then(parse_id);
        let link = Link::Stream { last_event: last_event.as_ref() };
        // A browser does not come back after an error: it waits for the engine.
        let deadline = Instant::now() + self.server().settings().timeout;
        let held = match self.server().attach_patiently(&session, link, deadline).await {
            Ok(AttachOutcome::Held(held)) => held,
            // 204 tells a browser not to come back: another stream has the session.
            Ok(AttachOutcome::Closed | AttachOutcome::Late) => return reply::response(StatusCode::NO_CONTENT, "", ""),
            Ok(AttachOutcome::Unknown) => return reply::plain(StatusCode::NOT_FOUND, "Unknown client"),
            Err(error) => {
                tracing::debug!(%error, "cannot open an event stream");
                // A stream that ends, and not a status 503: after an error a browser never comes back.
                return reply::response(StatusCode::OK, "text/event-stream", "retry: 5000\r\n\r\n");
            }
        };
        // One chunk under way: what the connection does not take stays in the outbox.
        let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
        let request = RequestInfo {
            id: arrival.id,
            transport: Transport::EventSource,
            dialect: mount.dialect(),
            headers: self.kept(headers),
            peer: Some(arrival.peer),
            internal: false,
        };
        self.0.tasks.spawn(Stream { web: self.clone(), held, request, sender }.run().in_current_span());
        let chunks = futures_util::stream::poll_fn(move |context| {
            receiver.poll_recv(context).map(|chunk| chunk.map(Ok::<_, Infallible>))
        });
        let mut response = warp::reply::stream(chunks).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        response
    }
}

/// One open stream. Owned by its task.
struct Stream {
    web: Web,
    /// The session that it shows.
    held: Held,
    /// The request that opened it.
    request: RequestInfo,
    /// To the response's body; closed when the connection is gone.
    sender: mpsc::Sender<Bytes>,
}

impl Stream {
    async fn run(self) {
        self.pump().await;
        if matches!(self.held.ended(), None | Some(End::Stopping))
            && let Err(error) = self.held.detach(Progress::Flushed).await
        {
            tracing::debug!(%error, "could not detach an event stream");
        }
    }

    /// Until the session or the connection ends.
    async fn pump(&self) {
        let opening = format!("retry: 5000\r\nid: {}\r\n\r\n", event_id(self.held.epoch(), &self.held.sent().cursor));
        if !self.write(opening.into(), &self.held.sent()).await {
            return;
        }
        let ping = self.web.settings().eventsource_ping;
        let mut ping_at = Instant::now() + ping;
        let old_at = old_at(self.web.settings().max_connection_age);
        loop {
            if old_at.is_some_and(|old_at| old_at <= Instant::now()) {
                // Seen with the next message or comment: soon enough, and without a timer of its own.
                self.web.server().metrics().moved(Moved::Age);
                return;
            }
            let step = tokio::select! {
                step = self.held.next() => step,
                () = self.sender.closed() => return,
                () = tokio::time::sleep_until(ping_at) => {
                    if !self.write(Bytes::from_static(b":\r\n\r\n"), &self.held.sent()).await {
                        return;
                    }
                    ping_at = Instant::now() + ping;
                    continue;
                }
            };
            match step {
                Step::Ended(_) => return,
                Step::Ready => {
                    let before = self.held.sent();
                    let chunk = self.events().await;
                    if !chunk.is_empty() && !self.write(chunk.into(), &before).await {
                        return;
                    }
                    ping_at = Instant::now() + ping;
                }
                Step::Refresh => {
                    if let Err(error) = self.web.server().sessions().refresh(self.held.attachment()).await {
                        tracing::debug!(%error, "event stream cannot read the log; trying again");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    /// What waits, as events.
    async fn events(&self) -> String {
        let server = self.web.server();
        let rewrite = server.rewrites_deliveries();
        let mut chunk = String::new();
        let mut cursor = self.held.sent().cursor;
        let batch = self.held.take(TAKE);
        server.metrics().delivered.inc_by(batch.deliveries.len() as u64);
        if let Some(gap) = batch.gap {
            // No connect waits here whose reply could say it.
            if let Some(told) = server.encode(server.tell_of_gap(self.held.session(), gap), &self.request).await {
                let _ = write!(chunk, "data: [{}]\r\n\r\n", String::from_utf8_lossy(&told));
            }
        }
        for delivery in batch.deliveries {
            if !batch.replayed {
                // What is replayed lies below what came before.
                cursor.raise(delivery.partition, delivery.position);
            }
            let array = if rewrite {
                let Some(json) = server.rewrite_delivery(&delivery, batch.form, &self.request).await else { continue };
                format!("[{}]", String::from_utf8_lossy(&json))
            } else {
                String::from_utf8_lossy(&delivery.array_as(batch.form)).into_owned()
            };
            // Compact JSON has no line breaks, but a publisher's raw payload may: each line is a field of its own.
            let _ = write!(chunk, "id: {}\r\n", event_id(self.held.epoch(), &cursor));
            for line in array.split(['\r', '\n']) {
                let _ = write!(chunk, "data: {line}\r\n");
            }
            chunk.push_str("\r\n");
        }
        chunk
    }

    /// Hands a chunk to the connection; false when it is gone or takes nothing for too long. When it takes the chunk,
    /// everything up to `before` was written, which is what a heartbeat may count on.
    async fn write(&self, chunk: Bytes, before: &Reach) -> bool {
        let patience = self.web.settings().write_timeout;
        if !matches!(tokio::time::timeout(patience, self.sender.send(chunk)).await, Ok(Ok(()))) {
            return false;
        }
        match tokio::time::timeout(patience, self.sender.reserve()).await {
            Ok(Ok(_)) => {
                self.held.flushed(before);
                true
            }
            _ => false,
        }
    }
}

/// `epoch.position`, with more positions where there are more partitions.
fn event_id(epoch: Epoch, cursor: &Cursor) -> String {
    let mut id = epoch.0.to_string();
    for position in cursor.positions() {
        let _ = write!(id, ".{}", position.0);
    }
    id
}

/// Reads what [`event_id`] wrote; anything else is no id of ours and says nothing.
fn parse_id(text: &str) -> Option<LastEvent> {
    let mut numbers = text.split('.').take(1 + usize::from(u16::MAX)).map(str::parse::<u64>);
    let epoch = Epoch(numbers.next()?.ok()?);
    let cursor = numbers.map(|number| number.map(Position)).collect::<Result<Cursor, _>>().ok()?;
    Some(LastEvent { epoch, cursor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        let cursor: Cursor = [Position(1 << 52), Position(7)].into_iter().collect();
        let id = event_id(Epoch(3), &cursor);
        assert_eq!(parse_id(&id), Some(LastEvent { epoch: Epoch(3), cursor }));
        for foreign in ["", "x", "1.x", "1.-2", "99999999999999999999"] {
            assert_eq!(parse_id(foreign), None, "{foreign}");
        }
    }
}
