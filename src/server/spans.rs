//! Spans for the messages of a request or frame: what log lines and traces say of the message they belong to. All at level
//! `debug`, so that they cost nothing unless somebody asks. The spans around them are the transports'.

use tracing::Span;

use super::RequestInfo;
use crate::bayeux::Message;
use crate::engine::SessionId;
use crate::metrics::Kind;

/// Bytes of a channel's name in a span: it may be as long as the body.
const NAME: usize = 128;

/// For what is done because of one message, or of a row of publishes that begins with it.
pub(super) fn message(message: &Message, kind: Kind, request: &RequestInfo) -> Span {
    if request.internal {
        return Span::none();
    }
    macro_rules! span {
        ($name:literal) => {
            tracing::debug_span!(
                $name,
                channel = start(&message.channel),
                session = message.client_id.as_deref().map(start),
            )
        };
    }
    match kind {
        Kind::Handshake => span!("handshake"),
        Kind::Connect => span!("connect"),
        Kind::Subscribe => span!("subscribe"),
        Kind::Unsubscribe => span!("unsubscribe"),
        Kind::Disconnect => span!("disconnect"),
        Kind::Publish => span!("publish"),
        Kind::Unknown => span!("unknown"),
    }
}

/// The handshake that is under way has made this session.
pub(super) fn note_session(session: &SessionId) {
    Span::current().record("session", session.as_str());
}

fn start(text: &str) -> &str {
    let end = (0..=text.len().min(NAME)).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or_default()]
}
