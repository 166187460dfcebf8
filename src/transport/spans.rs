//! Spans for requests and for the frames of sockets: what ties log lines and traces together. All at level `debug`, so that
//! they cost no memory and next to no time unless somebody asks. Made by the listener, and by each socket.

use http::Method;
use http::header::HeaderName;
use tracing::{Span, field};

use super::{Arrival, reply};
use crate::server::RequestInfo;

/// What a proxy calls the request (nginx' `$request_id`, HAProxy's `unique-id`, Envoy, Traefik).
const PROXY_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of it that are kept.
const PROXY_ID_BYTES: usize = 128;

/// For one HTTP request; the socket or stream that it opens goes by its id as well.
pub fn request_span(arrival: &Arrival, method: &Method) -> Span {
    let span = tracing::debug_span!(
        "request",
        id = %arrival.id,
        proxy_id = reply::text(&arrival.headers, PROXY_ID).filter(|id| id.len() <= PROXY_ID_BYTES),
        peer = %arrival.peer,
        %method,
        path = arrival.uri.path(),
        otel.kind = field::Empty,
    );
    #[cfg(feature = "otlp")]
    remote::continue_trace(&span, &arrival.headers);
    span
}

/// For the frames that a socket processes in one step. It has no parent, as that would be as old as the socket.
pub(super) fn frame_span(request: &RequestInfo) -> Span {
    let span = tracing::debug_span!(parent: None, "frame", id = %request.id, otel.kind = field::Empty);
    #[cfg(feature = "otlp")]
    span.record("otel.kind", "server");
    span.follows_from(Span::current());
    span
}

/// What a request says of the trace it is part of.
#[cfg(feature = "otlp")]
mod remote {
    use http::HeaderMap;
    use opentelemetry::propagation::Extractor;
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    /// The span belongs to the trace that the headers name (W3C Trace Context), if they name one.
    pub(super) fn continue_trace(span: &Span, headers: &HeaderMap) {
        if span.is_disabled() {
            return;
        }
        span.record("otel.kind", "server");
        let context = opentelemetry::global::get_text_map_propagator(|known| known.extract(&Headers(headers)));
        // Fails where nobody collects traces.
        let _ = span.set_parent(context);
    }

    struct Headers<'a>(&'a HeaderMap);

    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }
}
