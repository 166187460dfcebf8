//! Files that are part of the program: the clients that pages load from a mount (wire contract, 1.4). With strong
//! validators, compressed when they were built, and under names that never change their content. Used by the routes.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderValue, IF_NONE_MATCH,
    VARY,
};
use http::{HeaderMap, StatusCode};
use warp::reply::Response;
use xxhash_rust::xxh3::xxh3_64;

use super::{Mount, reply};

/// A file in all the forms in which it is sent; an empty form is not there.
pub(super) struct File {
    pub kind: &'static str,
    pub plain: &'static [u8],
    pub gzip: &'static [u8],
    pub brotli: &'static [u8],
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the built client, with its compressed forms beside it.
macro_rules! built {
    ($name:literal) => {
        File {
            kind: JAVASCRIPT,
            plain: include_bytes!(concat!("../../browser/dist/", $name)),
            gzip: include_bytes!(concat!("../../browser/dist/", $name, ".gz")),
            brotli: include_bytes!(concat!("../../browser/dist/", $name, ".br")),
        }
    };
}

/// Weft's client, as a script that defines `Weft` and `Faye`.
const CLASSIC: File = built!("weft.js");
/// Weft's client, as a module.
const MODULE: File = built!("weft.mjs");
/// Its typings.
const TYPINGS: File = File {
    kind: "text/plain; charset=utf-8",
    plain: include_bytes!("../../browser/dist/weft.d.ts"),
    gzip: &[],
    brotli: &[],
};
/// Resume for the stock clients of Faye and CometD.
const RESUME: File =
    File { kind: JAVASCRIPT, plain: include_bytes!("../../browser/extensions/resume.js"), gzip: &[], brotli: &[] };

impl File {
    fn hash(&self) -> String {
        format!("{:016x}", xxh3_64(self.plain))
    }
}

/// The client files of a mount: the last segment decides (wire contract, 1.4). `None` when the path is no file.
pub(super) fn of_mount(mount: &Mount, path: &str, rest: &str, headers: &HeaderMap) -> Option<Response> {
    let name = path.rsplit('/').next()?;
    let stem = [".js", ".mjs", ".map"].iter().find_map(|ending| name.strip_suffix(ending));
    if stem.is_none() && name != "client.d.ts" {
        return None;
    }
    let base = mount.path().rsplit('/').next().unwrap_or_default();
    let classic = name == "client.js" || rest == ".js" || name.strip_suffix(".js").is_some_and(|stem| stem == base);
    // `client-<hash>.js`: whoever has it need never ask again.
    let hashed = |file: &File| stem.and_then(|stem| stem.strip_prefix("client-")) == Some(&*file.hash());
    Some(match name {
        _ if classic => respond(headers, &CLASSIC, false),
        "client.mjs" => respond(headers, &MODULE, false),
        "client.d.ts" => respond(headers, &TYPINGS, false),
        _ if rest == "/resume.js" => respond(headers, &RESUME, false),
        _ if name.ends_with(".js") && hashed(&CLASSIC) => respond(headers, &CLASSIC, true),
        _ if name.ends_with(".mjs") && hashed(&MODULE) => respond(headers, &MODULE, true),
        _ => reply::response(StatusCode::NOT_FOUND, "", ""),
    })
}

/// Path of the script under a name that never changes its content.
pub(super) fn hashed_client(mount: &Mount) -> String {
    format!("{}/client-{}.js", mount.path().trim_end_matches('/'), CLASSIC.hash())
}

/// Sends a file, in the best form that the peer takes, or nothing if it has it. `forever`: its name holds its hash.
pub(super) fn respond(headers: &HeaderMap, file: &File, forever: bool) -> Response {
    let accepted = reply::text(headers, ACCEPT_ENCODING).unwrap_or_default();
    let (encoding, content) = [("br", file.brotli), ("gzip", file.gzip)]
        .into_iter()
        .find(|(encoding, content)| !content.is_empty() && accepts(accepted, encoding))
        .unwrap_or(("", file.plain));
    let hash = file.hash();
    // Strong: the same bytes. So each form has its own.
    let tag = if encoding.is_empty() { hash } else { format!("{hash}-{encoding}") };
    // Faye's own tag is not quoted, and its users compare it verbatim: take both forms.
    let matches = reply::text(headers, IF_NONE_MATCH)
        .is_some_and(|tags| tags.split(',').any(|one| one.trim().trim_start_matches("W/").trim_matches('"') == tag));
    let mut response = if matches {
        reply::response(StatusCode::NOT_MODIFIED, "", "")
    } else {
        reply::response(StatusCode::OK, file.kind, Bytes::from_static(content))
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        headers.insert(ETAG, tag);
    }
    if !encoding.is_empty() && !matches {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    let caching = if forever { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    // Modules are loaded by the rules of CORS; there is nothing secret in a file that everybody gets.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Whether `Accept-Encoding` takes this one: named, or by `*`, and not with a weight of zero.
fn accepts(accepted: &str, encoding: &str) -> bool {
    let weight = |wanted: &str| {
        accepted.split(',').find_map(|item| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = parameters.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse().ok());
            name.trim().eq_ignore_ascii_case(wanted).then_some(weight.unwrap_or(1.0f32))
        })
    };
    weight(encoding).or_else(|| weight("*")).is_some_and(|weight| weight > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        for (accepted, br, gzip) in [
            ("", false, false),
            ("gzip, deflate, br", true, true),
            ("GZIP;q=0.5", false, true),
            ("br;q=0, *", false, true),
            ("*;q=0", false, false),
            ("identity, gzip ; q=0.0, br; q=1", true, false),
        ] {
            assert_eq!((accepts(accepted, "br"), accepts(accepted, "gzip")), (br, gzip), "{accepted}");
        }
    }
}
