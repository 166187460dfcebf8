//! WebSocket: the handshake. The connection itself is `websocket/connection.rs`, its write path `websocket/wire.rs`.

mod ahead;
mod connection;
mod outlet;
mod pings;
mod wire;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue, ORIGIN, UPGRADE};
use http::{HeaderMap, Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::Instrument;
use warp::reply::Response;

use super::{Arrival, Mount, Web, reply};
use crate::server::{RequestInfo, Transport};

/// What is left of a connection after its upgrade. Put into the request's extensions by the listener as a way to get
/// at it without HTTP's buffers.
pub struct Stream {
    /// The socket.
    pub tcp: TcpStream,
    /// Bytes that came behind the request.
    pub first_bytes: Bytes,
    /// Kept as long as the connection is open: its place among the connections allowed.
    pub place: Box<dyn Send + Sync>,
}

/// Turns an upgraded connection into a [`Stream`]; the listener knows its own types.
pub type TakeStream = fn(hyper::upgrade::Upgraded) -> Option<Stream>;

/// Whether a request wants to become a WebSocket.
pub(super) fn is_upgrade(method: &Method, headers: &HeaderMap) -> bool {
    let lists = |name: HeaderName, token: &str| {
        reply::text(headers, name)
            .is_some_and(|list| list.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
    };
    *method == Method::GET && lists(UPGRADE, "websocket") && lists(CONNECTION, "upgrade")
}

impl Web {
    /// Answers the handshake and starts the connection's task.
    pub(super) fn upgrade(
        &self,
        arrival: &Arrival,
        mount: &Mount,
        upgrade: Option<(OnUpgrade, TakeStream)>,
    ) -> Response {
        let headers = &*arrival.headers;
        let (accept, upgrade, take) = match (accept_key(headers), upgrade) {
            (Ok(accept), Some((upgrade, take))) => (accept, upgrade, take),
            (Err(why), _) => return reply::response(StatusCode::BAD_REQUEST, "text/plain", why),
            (Ok(_), None) => {
                return reply::response(StatusCode::BAD_REQUEST, "text/plain", "Cannot upgrade this connection");
            }
        };
        let request = RequestInfo {
            id: arrival.id,
            transport: Transport::WebSocket,
            dialect: mount.dialect(),
            headers: self.kept(headers),
            peer: Some(arrival.peer),
            internal: false,
        };
        let web = self.clone();
        // Boxed, so that the task is not as large as its beginning for as long as the socket lives.
        let open = Box::pin(async move {
            // Fails when the peer is gone before the 101 is written; the listener's deadlines bound the wait.
            let upgraded = upgrade.await.ok()?;
            Some(connection::open(web, request, take(upgraded)?).await)
        });
        let serve = async move {
            if let Some(connection) = open.await {
                connection.run().await;
            }
        };
        self.0.tasks.spawn(serve.in_current_span());
        let mut response = reply::response(StatusCode::SWITCHING_PROTOCOLS, "", "");
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(HeaderName::from_static("sec-websocket-accept"), accept);
        response
    }
}

/// The answer to the client's key, or what is wrong with its handshake (RFC 6455, 4.2.1).
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, String> {
    let version = reply::text(headers, HeaderName::from_static("sec-websocket-version")).unwrap_or_default();
    if version.trim() != "13" {
        return Err(format!("Unsupported WebSocket version: {version}"));
    }
    let key = reply::text(headers, HeaderName::from_static("sec-websocket-key"))
        .map(str::trim)
        .ok_or("Missing handshake request header: Sec-WebSocket-Key")?;
    // 16 bytes in base64: 22 characters and two signs of padding.
    let (digits, padding) = key.split_at_checked(22).unwrap_or((key, ""));
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if padding != "==" || !digits.bytes().all(base64) {
        return Err("Invalid handshake request header: Sec-WebSocket-Key".to_owned());
    }
    // The browser says where the page is from; the server is open by design, so it is only logged.
    tracing::trace!(origin = reply::text(headers, ORIGIN).unwrap_or_default(), "websocket handshake");
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|error| error.to_string())
}
