//! What an operator may change while a node runs: how much it logs. On the internal listener only.

use std::fmt;
use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};
use warp::reply::Response;

use super::{Web, reply};

/// The log of the process, as far as it can be turned up and down. Given by whoever set it up.
pub trait LogControl: Send + Sync {
    /// The level, or the directives, in force.
    fn level(&self) -> String;

    /// Changes them.
    ///
    /// # Errors
    /// Says what is allowed.
    fn set_level(&self, level: &str) -> Result<(), String>;
}

/// Shared by a node and its routes.
#[derive(Clone)]
pub struct LogHandle(pub Arc<dyn LogControl>);

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogHandle").field(&self.0.level()).finish()
    }
}

impl Web {
    /// `GET` and `PUT /log/level`: plain text both ways.
    pub(super) async fn log_level<S, B, E>(&self, log: Option<&LogHandle>, method: &Method, body: S) -> Response
    where
        S: Stream<Item = Result<B, E>>,
        B: Buf,
    {
        let Some(LogHandle(log)) = log else {
            return reply::plain(StatusCode::NOT_FOUND, "The program around this node has its own log\n");
        };
        match *method {
            Method::GET => reply::plain(StatusCode::OK, format!("{}\n", log.level())),
            Method::PUT => {
                let wanted = match self.read_body(body, None).await {
                    Ok(body) => String::from_utf8_lossy(&body).trim().to_owned(),
                    Err(response) => return response,
                };
                match log.set_level(&wanted) {
                    Ok(()) => {
                        tracing::info!(level = wanted, "log level changed");
                        reply::plain(StatusCode::OK, format!("{}\n", log.level()))
                    }
                    Err(error) => reply::plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
                }
            }
            _ => {
                let mut response = reply::plain(StatusCode::METHOD_NOT_ALLOWED, "Use GET or PUT\n");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, PUT"));
                response
            }
        }
    }
}
