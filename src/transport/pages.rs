//! What a node shows to people and probes: the page at `/`, its facts, and health.

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;
use warp::reply::Response;

use super::files::{self, File};
use super::{Mount, Web, reply};
use crate::engine::Engine;

const INDEX: File = File {
    kind: "text/html; charset=utf-8",
    plain: include_bytes!("../../browser/pages/index.html"),
    gzip: &[],
    brotli: &[],
};
/// The page runs its own inline script and style and the client of its node, and talks to that alone.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; \
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
        let mut response = files::respond(headers, &INDEX, false);
        let policy = HeaderName::from_static("content-security-policy");
        response.headers_mut().insert(policy, HeaderValue::from_static(PAGE_POLICY));
        response
    }

    /// What the page at `/` shows.
    pub(super) async fn status(&self) -> Response {
        let facts = &self.0.facts;
        let sessions = self.server().sessions().store().sessions().await.ok();
        let mount = |mount: &Mount| {
            serde_json::json!({
                "path": mount.path(),
                "dialect": mount.dialect().as_str(),
                "client": files::hashed_client(mount),
            })
        };
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

    /// The counters.
    pub(super) fn metrics(&self) -> Response {
        let text = self.server().metrics().render(&self.server().sessions().census());
        reply::response(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut response = reply::response(status, "application/json; charset=utf-8", format!("{value}\n"));
    reply::no_store(response.headers_mut());
    response
}

impl NodeFacts {
    /// Facts of a node.
    pub fn new(node: String, engine: &'static str, readiness: watch::Receiver<Readiness>) -> Self {
        Self { node, engine, started: Instant::now(), readiness }
    }
}
