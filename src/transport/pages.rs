//! What a node shows to people and probes: the page at `/`, its facts, health, and the client files of a mount.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;
use warp::reply::Response;

use super::{Mount, Web, reply};
use crate::engine::Engine;

const INDEX: &str = include_str!("../../browser/pages/index.html");
const CLIENT: &str = include_str!("../../browser/pages/client.js");
/// Resume for the stock clients of Faye and CometD.
const RESUME: &str = include_str!("../../browser/extensions/resume.js");
/// The page runs its own inline script and style, and talks to its own node.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     connect-src 'self' ws: wss:; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// Whether messages flow, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// They do.
    Ready,
    /// They do not, for this reason.
    NotReady(String),
}

/// What does not change while the node runs, and where to look for what does.
#[derive(Clone)]
pub struct NodeFacts {
    /// The node's name.
    pub node: String,
    /// The engine's name.
    pub engine: &'static str,
    /// When it started.
    pub started: Instant,
    /// Whether messages flow.
    pub readiness: watch::Receiver<Readiness>,
}

/// `200 ok`: the process runs.
pub(super) fn healthz() -> Response {
    reply::plain(StatusCode::OK, "ok\n")
}

impl Web {
    /// 200 while messages flow, else 503 with the reason.
    pub(super) fn readyz(&self) -> Response {
        match &*self.0.facts.readiness.borrow() {
            Readiness::Ready => json(StatusCode::OK, &serde_json::json!({ "ready": true })),
            Readiness::NotReady(reason) => {
                json(StatusCode::SERVICE_UNAVAILABLE, &serde_json::json!({ "ready": false, "reason": reason }))
            }
        }
    }

    /// The page at `/`.
    pub(super) fn index(headers: &HeaderMap) -> Response {
        let mut response = file(headers, "text/html; charset=utf-8", INDEX);
        let policy = HeaderName::from_static("content-security-policy");
        response.headers_mut().insert(policy, HeaderValue::from_static(PAGE_POLICY));
        response
    }

    /// What the page at `/` shows.
    pub(super) async fn status(&self) -> Response {
        let facts = &self.0.facts;
        let sessions = self.server().sessions().store().sessions().await.ok();
        let mount = |mount: &Mount| serde_json::json!({ "path": mount.path(), "dialect": mount.dialect().as_str() });
        let status = serde_json::json!({
            "name": "weft",
            "version": env!("CARGO_PKG_VERSION"),
            "node": facts.node,
            "engine": facts.engine,
            "uptime_seconds": facts.started.elapsed().as_secs(),
            "mounts": self.settings().mounts.iter().map(mount).collect::<Vec<_>>(),
            "timeout_seconds": self.server().settings().timeout.as_secs_f64(),
            "sessions": sessions,
            "connections": self.server().metrics().connections.get(),
        });
        json(StatusCode::OK, &status)
    }

    /// The client files of a mount: the last segment decides (wire contract, 1.4). `None` when the path is no file.
    pub(super) fn client_file(mount: &Mount, path: &str, rest: &str, headers: &HeaderMap) -> Option<Response> {
        let name = path.rsplit('/').next()?;
        let script = name.ends_with(".js");
        if !script && !name.ends_with(".map") {
            return None;
        }
        let base = mount.path().rsplit('/').next().unwrap_or_default();
        let known = name == "client.js" || rest == ".js" || name.strip_suffix(".js").is_some_and(|stem| stem == base);
        Some(if script && known {
            file(headers, "text/javascript; charset=utf-8", CLIENT)
        } else if rest == "/resume.js" {
            file(headers, "text/javascript; charset=utf-8", RESUME)
        } else {
            reply::response(StatusCode::NOT_FOUND, "", "")
        })
    }

    /// The counters.
    pub(super) fn metrics(&self) -> Response {
        reply::response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", self.server().metrics().render())
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut response = reply::response(status, "application/json; charset=utf-8", format!("{value}\n"));
    reply::no_store(response.headers_mut());
    response
}

/// A built-in file, with a validator.
fn file(headers: &HeaderMap, content_type: &'static str, content: &'static str) -> Response {
    let mut hasher = DefaultHasher::new();
    (content, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    let hash = format!("{:016x}", hasher.finish());
    // Faye's own tag is not quoted, and its users compare it verbatim: take both forms.
    let matches = reply::text(headers, IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/").trim_matches('"') == hash));
    let mut response = if matches {
        reply::response(StatusCode::NOT_MODIFIED, "", "")
    } else {
        reply::response(StatusCode::OK, content_type, Bytes::from_static(content.as_bytes()))
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        headers.insert(ETAG, tag);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

impl NodeFacts {
    /// Facts of a node.
    pub fn new(node: String, engine: &'static str, readiness: watch::Receiver<Readiness>) -> Self {
        Self { node, engine, started: Instant::now(), readiness }
    }
}
