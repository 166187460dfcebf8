//! Callback-polling (JSONP): messages in a GET's query, answers as a script.

use std::borrow::Cow;

use warp::reply::Response;

use super::answer::{Wire, is_callback};
use super::reply::Later;
use super::{Arrival, Mount, Web, cors};
use crate::server::Transport;

/// The function that is called when the request names none.
const DEFAULT_CALLBACK: &str = "jsonpcallback";

impl Web {
    /// A GET below a mount that asks for no stream.
    pub(super) fn get(&self, arrival: &Arrival, mount: &Mount) -> Response {
        let (mut message, mut callback) = (None, None);
        for (name, value) in form_urlencoded::parse(arrival.uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "message" if message.is_none() => message = Some(value),
                "jsonp" if callback.is_none() => callback = Some(value),
                _ => {}
            }
        }
        let callback = callback.filter(|name| !name.is_empty()).unwrap_or(Cow::Borrowed(DEFAULT_CALLBACK));
        let mut response = match message {
            Some(message) if is_callback(&callback) => {
                let wire = Wire::Script(callback.into_owned());
                let answering = self.answer(arrival, mount, Transport::CallbackPolling, message.as_bytes(), wire);
                return Later::response(answering);
            }
            Some(_) => self.malformed("the callback is not a function's name"),
            None => self.malformed("no message in the query"),
        };
        cors::allow(&arrival.headers, &mut response);
        response
    }
}
