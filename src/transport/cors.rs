//! Cross-origin rules: the server is open by design (wire contract, 1.13); extensions restrict it.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderValue, ORIGIN, REFERER, VARY,
};
use http::{HeaderMap, Method, StatusCode};
use warp::reply::Response;

use super::reply;

/// What Faye's clients send of their own accord.
const ALLOWED_HEADERS: &str = "Accept, Authorization, Content-Type, Pragma, X-Requested-With";

/// Whether a request asks for permission only. Any method counts that names POST as the one to come, as in Faye.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS || headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| method == "POST")
}

/// The permission.
pub(super) fn preflight(request: &HeaderMap) -> Response {
    let mut response = reply::response(StatusCode::OK, "", "");
    let any = HeaderValue::from_static("*");
    let origin = request.get(ORIGIN).or_else(|| request.get(REFERER)).cloned().unwrap_or(any);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(request));
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(VARY, HeaderValue::from_static("Origin, Access-Control-Request-Headers"));
    response
}

/// The usual headers, and those of its own that the page asks for: a client's `setHeader` shall work across origins.
fn allowed_headers(request: &HeaderMap) -> HeaderValue {
    let usual = HeaderValue::from_static(ALLOWED_HEADERS);
    let Some(asked) = reply::text(request, ACCESS_CONTROL_REQUEST_HEADERS) else { return usual };
    let known = |name: &&str| !ALLOWED_HEADERS.split(", ").any(|usual| usual.eq_ignore_ascii_case(name));
    let own: Vec<&str> = asked.split(',').map(str::trim).filter(|name| !name.is_empty()).filter(known).collect();
    if own.is_empty() {
        return usual;
    }
    HeaderValue::from_str(&format!("{ALLOWED_HEADERS}, {}", own.join(", "))).unwrap_or(usual)
}

/// Lets the page that asked read the answer, errors included.
pub(super) fn allow(request: &HeaderMap, response: &mut Response) {
    allow_origin(request.get(ORIGIN).cloned(), response);
}

/// As [`allow`], by what [`origin`] has kept of the request.
pub(super) fn allow_origin(origin: Option<HeaderValue>, response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
}

/// Where the page that asked is from: a copy, which does not keep the buffer that the request was read into.
pub(super) fn origin(request: &HeaderMap) -> Option<HeaderValue> {
    HeaderValue::from_bytes(request.get(ORIGIN)?.as_bytes()).ok()
}
