//! Bodies that are no messages, and JSON at its edges.

use super::{Report, exchange};
use crate::support::bayeux::MOUNT;
use crate::support::http::json_request;

/// The right answer to a body.
#[derive(Debug, Clone)]
enum Answer {
    /// This status.
    Status(u16),
    /// 200 with exactly this body.
    Body(&'static str),
    /// 200 with one reply that has this error.
    Error(&'static str),
    /// 200 with one successful reply.
    Accepted,
    /// JSON text that is not Unicode: refused as a whole, or as a channel.
    RefusedSomehow,
}

use Answer::{Accepted, Body, Error, RefusedSomehow, Status};

const NO_DATA: &str = "402:data:Missing required parameter";

/// Name, body, answer.
fn rows() -> Vec<(String, Vec<u8>, Answer)> {
    let listed: &[(&str, &[u8], Answer)] = &[
        ("empty", b"", Status(400)),
        ("blank", b" \r\n\t", Status(400)),
        ("open object", b"{", Status(400)),
        ("open array", b"[", Status(400)),
        ("open string", b"[{\"channel\":\"/a", Status(400)),
        ("close only", b"]", Status(400)),
        ("missing value", b"{\"channel\":}", Status(400)),
        ("missing colon", b"{\"channel\" \"/a\"}", Status(400)),
        ("missing comma", b"[{} {}]", Status(400)),
        ("trailing comma in object", b"{\"channel\":\"/a\",}", Status(400)),
        ("trailing comma in array", b"[{},]", Status(400)),
        ("leading comma", b"[,{}]", Status(400)),
        ("two values", b"[] []", Status(400)),
        ("garbage after", b"[]x", Status(400)),
        ("comment", b"[/* none */]", Status(400)),
        ("single quotes", b"{'channel':'/a'}", Status(400)),
        ("bare key", b"{channel:\"/a\"}", Status(400)),
        ("number key", b"{1:2}", Status(400)),
        ("undefined", b"undefined", Status(400)),
        ("NaN", b"[NaN]", Status(400)),
        ("Infinity", b"[{\"data\":Infinity}]", Status(400)),
        ("hexadecimal", b"[{\"data\":0x10}]", Status(400)),
        ("leading zero", b"[{\"data\":01}]", Status(400)),
        ("leading plus", b"[{\"data\":+1}]", Status(400)),
        ("bare point", b"[{\"data\":.5}]", Status(400)),
        ("bad escape", b"[{\"data\":\"\\x41\"}]", Status(400)),
        ("cut escape", b"[{\"data\":\"\\u12\"}]", Status(400)),
        ("NUL in string", b"[{\"channel\":\"/a\",\"data\":\"\0\"}]", Status(400)),
        ("newline in string", b"[{\"channel\":\"/a\",\"data\":\"\n\"}]", Status(400)),
        ("NUL alone", b"\0", Status(400)),
        ("NUL after", b"[]\0", Status(400)),
        ("byte order mark", b"\xef\xbb\xbf[]", Status(400)),
        ("UTF-16", b"\xff\xfe[\0]\0", Status(400)),
        ("random bytes", b"\x80\x81\xfe\xff\x00\x01", Status(400)),
        ("number", b"1", Status(400)),
        ("string", b"\"[]\"", Status(400)),
        ("true", b"true", Status(400)),
        ("false", b"false", Status(400)),
        ("null", b"null", Body("[]")),
        ("no messages", b"[]", Body("[]")),
        ("only null", b"[null]", Body("[]")),
        ("nulls", b"[null,null]", Body("[]")),
        ("no fields", b"{}", Error(NO_DATA)),
        ("number in array", b"[1]", Error(NO_DATA)),
        ("string in array", b"[\"/meta/handshake\"]", Error(NO_DATA)),
        ("boolean in array", b"[true]", Error(NO_DATA)),
        ("array in array", b"[[{\"channel\":\"/a\",\"data\":1}]]", Error(NO_DATA)),
        ("bad UTF-8 in data", b"[{\"channel\":\"/a\",\"data\":\"\xff\xfe\"}]", Accepted),
        ("overlong UTF-8 in data", b"[{\"channel\":\"/a\",\"data\":\"\xc0\xaf\"}]", Accepted),
        ("surrogates as UTF-8", b"[{\"channel\":\"/a\",\"data\":\"\xed\xa0\x80\"}]", Accepted),
        ("bad UTF-8 in channel", b"[{\"channel\":\"/\xff\",\"data\":1}]", Error("405:/\u{fffd}:Invalid channel")),
        ("lone surrogate in data", br#"[{"channel":"/a","data":"\ud800"}]"#, Accepted),
        ("lone surrogate in id", br#"[{"channel":"/a","data":1,"id":"\udfff"}]"#, Accepted),
        ("lone surrogate in channel", br#"[{"channel":"/\ud800","data":1}]"#, RefusedSomehow),
        ("lone surrogate as key", br#"[{"\ud800":1}]"#, RefusedSomehow),
        ("escaped NUL in channel", br#"[{"channel":"/a\u0000","data":1}]"#, Error("405:/a\0:Invalid channel")),
        ("escaped NUL in data", br#"[{"channel":"/a","data":"\u0000"}]"#, Accepted),
        ("duplicate channel", br#"[{"channel":"/a","channel":"b","data":1}]"#, Error("405:b:Invalid channel")),
        ("duplicate channel, good last", br#"[{"channel":"b","channel":"/a","data":1}]"#, Accepted),
        (
            "duplicate clientId",
            br#"[{"channel":"/meta/disconnect","clientId":"x","clientId":"y"}]"#,
            Error("401:y:Unknown client"),
        ),
        ("duplicate in data", br#"[{"channel":"/a","data":{"a":1,"a":2}}]"#, Accepted),
        ("escaped key", br#"[{"\u0063hannel":"/a","data":1}]"#, Accepted),
        ("own __proto__", br#"[{"channel":"/a","data":1,"__proto__":{"channel":"/meta/x"}}]"#, Accepted),
        ("__proto__ for fields", br#"[{"__proto__":{"channel":"/a","data":1}}]"#, Error(NO_DATA)),
        ("constructor", br#"[{"channel":"/a","data":1,"constructor":{"prototype":{}}}]"#, Accepted),
        ("toString", br#"[{"channel":"/a","data":1,"toString":null,"valueOf":1}]"#, Accepted),
        ("__proto__ in data", br#"[{"channel":"/a","data":{"__proto__":{"x":1}}}]"#, Accepted),
        ("huge number as data", br#"[{"channel":"/a","data":1e999}]"#, Accepted),
        ("tiny number as data", br#"[{"channel":"/a","data":-1e-999}]"#, Accepted),
    ];
    let listed = listed.iter().map(|(name, body, answer)| ((*name).to_owned(), body.to_vec(), answer.clone()));
    listed.chain(deep_rows()).collect()
}

/// Nesting that would overflow the stack of a parser that recurses.
fn deep_rows() -> Vec<(String, Vec<u8>, Answer)> {
    const DEPTH: usize = 100_000;
    let arrays = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    let objects = format!("{}1{}", "{\"a\":".repeat(DEPTH), "}".repeat(DEPTH));
    let mut rows = vec![
        ("deep array".to_owned(), arrays.clone().into_bytes(), Status(400)),
        ("deep object".to_owned(), objects.clone().into_bytes(), Status(400)),
        ("deep array, open".to_owned(), "[".repeat(DEPTH).into_bytes(), Status(400)),
    ];
    for field in ["channel", "data", "ext", "id", "clientId", "subscription", "advice", "unknown"] {
        let body = format!(r#"[{{"channel":"/a","data":1,"{field}":{arrays}}}]"#).into_bytes();
        rows.push((format!("deep {field}"), body, Status(400)));
    }
    rows
}

/// Sends every row.
pub async fn run(report: &mut Report) {
    for (name, body, answer) in rows() {
        let outcome = match exchange(report.addr, &json_request(MOUNT, &body)).await {
            Ok(response) => check(&answer, response.status.as_u16(), &response.body),
            Err(unanswered) => Err(format!("expected {answer:?}, got {unanswered:?}")),
        };
        report.row(&format!("value: {name}"), outcome).await;
    }
}

fn check(answer: &Answer, status: u16, body: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(body);
    let replies = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
    let one = replies.as_array().is_some_and(|replies| replies.len() == 1);
    let right = match answer {
        Status(expected) => status == *expected,
        Body(expected) => status == 200 && text == *expected,
        Error(error) => status == 200 && one && replies[0]["successful"] == false && replies[0]["error"] == *error,
        // A lone surrogate cannot be put into a Rust string, so such replies are compared as text.
        Accepted => status == 200 && text.contains(r#""successful":true"#),
        RefusedSomehow => status == 400 || (status == 200 && text.contains(r#""successful":false"#)),
    };
    if right { Ok(()) } else { Err(format!("expected {answer:?}, got {status} {:.200}", text)) }
}
