//! Routing: one flat warp filter that takes a request apart, and plain Rust that decides (each rejected alternative of
//! a filter costs as much as the whole rest of the routing).

use bytes::Buf;
use futures_util::Stream;
use http::header::ACCEPT;
use http::{HeaderMap, Method, StatusCode};
use hyper::upgrade::OnUpgrade;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::reply::Answering;
use super::websocket::{self, TakeStream};
use super::{Arrival, LogHandle, Mount, Web, cors, files, pages, reply};

/// Everything a client can ask; the listener spares plain POSTs this way ([`Web::route_post`]). Requests must carry an
/// [`Arrival`], and a [`TakeStream`] where they can become sockets.
pub fn routes(web: Web) -> BoxedFilter<(Response,)> {
    warp::method()
        .and(warp::ext::get::<Arrival>())
        .and(warp::ext::optional::<OnUpgrade>())
        .and(warp::ext::optional::<TakeStream>())
        .and(warp::body::stream())
        .then(move |method, arrival, upgrade: Option<OnUpgrade>, take: Option<TakeStream>, body| {
            let web = web.clone();
            async move { web.route(method, arrival, upgrade.zip(take), body).await }
        })
        .boxed()
}

/// Everything on the internal listener.
pub fn internal_routes(web: Web, log: Option<LogHandle>) -> BoxedFilter<(Response,)> {
    warp::method()
        .and(warp::ext::get::<Arrival>())
        .and(warp::body::stream())
        .then(move |method: Method, arrival: Arrival, body| {
            let (web, log) = (web.clone(), log.clone());
            async move {
                match arrival.uri.path() {
                    "/healthz" => pages::healthz(),
                    "/readyz" => web.readyz(),
                    "/metrics" => web.metrics(),
                    "/status.json" => web.status().await,
                    "/log/level" => web.log_level(log.as_ref(), &method, body).await,
                    _ => reply::plain(
                        StatusCode::NOT_FOUND,
                        "Not found: try /healthz, /readyz, /metrics, /status.json or /log/level\n",
                    ),
                }
            }
        })
        .boxed()
}

impl Web {
    async fn route<S, B, E>(
        &self,
        method: Method,
        arrival: Arrival,
        upgrade: Option<(OnUpgrade, TakeStream)>,
        body: S,
    ) -> Response
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        let path = arrival.uri.path();
        match self.mount_of(path) {
            Some((mount, rest)) => self.below_mount(&method, &arrival, mount, rest, upgrade, body).await,
            None => self.elsewhere(&method, path, &arrival.headers).await,
        }
    }

    /// Routes a POST whose body is here: what nearly all requests are, for which a filter would find out only this, and
    /// copy the request several times on the way. `None`: for [`routes`], which answer everything.
    pub fn route_post(&self, arrival: &Arrival, body: &[u8]) -> Option<Answering> {
        let (path, headers) = (arrival.uri.path(), &*arrival.headers);
        let (mount, rest) = self.mount_of(path)?;
        if let Some(file) = files::of_mount(mount, path, rest, headers) {
            return Some(reply::at_once(file));
        }
        if cors::is_preflight(&Method::POST, headers) || body.len() > self.settings().max_body_bytes {
            return None;
        }
        Some(self.post_in_whole(arrival, mount, body))
    }

    /// The mount that a path belongs to, and what follows it. The longest mount counts.
    fn mount_of<'a>(&'a self, path: &'a str) -> Option<(&'a Mount, &'a str)> {
        let matching = |mount: &'a Mount| mount.rest(path).map(|rest| (mount, rest));
        self.settings().mounts.iter().filter_map(matching).min_by_key(|(_, rest)| rest.len())
    }

    /// The order of the wire contract, 1.1.
    async fn below_mount<S, B, E>(
        &self,
        method: &Method,
        arrival: &Arrival,
        mount: &Mount,
        rest: &str,
        upgrade: Option<(OnUpgrade, TakeStream)>,
        body: S,
    ) -> Response
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        let headers = &*arrival.headers;
        if websocket::is_upgrade(method, headers) {
            return self.upgrade(arrival, mount, upgrade);
        }
        if let Some(file) = files::of_mount(mount, arrival.uri.path(), rest, headers) {
            return file;
        }
        if cors::is_preflight(method, headers) {
            return cors::preflight(headers);
        }
        match *method {
            Method::GET if accepts_stream(headers) => self.eventsource(arrival, mount).await,
            Method::GET => self.get(arrival, mount),
            Method::POST => self.post(arrival, mount, body).await,
            _ => {
                let mut response = self.malformed("unsupported method");
                cors::allow(headers, &mut response);
                response
            }
        }
    }

    async fn elsewhere(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response {
        let readable = matches!(*method, Method::GET | Method::HEAD);
        let page = readable && self.settings().page;
        match path {
            "/" if page => Self::index(headers),
            "/status.json" if page => self.status().await,
            "/healthz" if readable => pages::healthz(),
            "/readyz" if readable => self.readyz(),
            _ => {
                let mounts: Vec<_> = self.settings().mounts.iter().map(Mount::path).collect();
                reply::plain(
                    StatusCode::NOT_FOUND,
                    format!("Not found: Bayeux is spoken at {}\n", mounts.join(" and ")),
                )
            }
        }
    }
}

/// `Accept` names `text/event-stream` as a whole item.
fn accepts_stream(headers: &HeaderMap) -> bool {
    reply::text(headers, ACCEPT).is_some_and(|list| list.split(',').any(|kind| kind.trim() == "text/event-stream"))
}
