//! Bad opening handshakes and bad frames. What breaks the WebSocket protocol ends the socket with the code that says
//! so; what is only bad Bayeux is ignored, and the socket stays.

use serde_json::json;
use tokio::time::timeout;

use super::{PATIENCE, Report, exchange};
use crate::support::bayeux::MOUNT;
use crate::support::http::{Connection, Cut, request};
use crate::support::websocket::{Frame, RawSocket, UPGRADE, frame, frame_with, opcode};

const FIN: u8 = 0x80;
const MASK: Option<[u8; 4]> = Some([0xa5, 0, 0xff, 0x3c]);

/// The right answer to what was sent on an open socket.
#[derive(Debug, Clone, Copy)]
enum Answer {
    /// A close frame with one of these codes.
    Close(&'static [u16]),
    /// The socket works on.
    StaysOpen,
    /// Either, but no silence.
    Either,
}

use Answer::{Close, Either, StaysOpen};

const PROTOCOL: Answer = Close(&[1002]);
const UNMASKED: Answer = Close(&[1002, 1003]);
const NOT_UTF8: Answer = Close(&[1007]);
const TOO_BIG: Answer = Close(&[1009]);

/// Name, bytes, answer.
fn rows() -> Vec<(String, Vec<u8>, Answer)> {
    let mut rows: Vec<(String, Vec<u8>, Answer)> = Vec::new();
    let mut row = |name: &str, bytes: Vec<u8>, answer: Answer| rows.push((name.to_owned(), bytes, answer));
    let text = |payload: &[u8]| frame(opcode::TEXT, payload);
    let part = |first: u8, payload: &[u8]| frame_with(first, MASK, payload);

    row("unmasked text", frame_with(FIN | opcode::TEXT, None, b"[]"), UNMASKED);
    row("unmasked ping", frame_with(FIN | opcode::PING, None, b""), UNMASKED);
    row("unmasked close", frame_with(FIN | opcode::CLOSE, None, &[3, 232]), UNMASKED);
    row("bad UTF-8", text(b"\xff\xfe"), NOT_UTF8);
    row("cut UTF-8", text(b"\"\xe2\x82"), NOT_UTF8);
    row("surrogate as UTF-8", text(b"\"\xed\xa0\x80\""), NOT_UTF8);
    row("overlong UTF-8", text(b"\xc0\xaf"), NOT_UTF8);
    row("bad UTF-8 in parts", [part(opcode::TEXT, b"\"\xe2"), part(FIN, b"\x28\"")].concat(), NOT_UTF8);
    row("continuation of nothing", part(FIN, b"[]"), PROTOCOL);
    row("continuation of nothing, open", part(opcode::CONTINUATION, b"["), PROTOCOL);
    row("text within text", [part(opcode::TEXT, b"["), text(b"[]")].concat(), PROTOCOL);
    row("binary within text", [part(opcode::TEXT, b"["), part(FIN | opcode::BINARY, b"]")].concat(), PROTOCOL);
    for reserved in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        row(&format!("opcode {reserved}"), part(FIN | reserved, b""), PROTOCOL);
    }
    for bits in [0x40, 0x20, 0x10, 0x70] {
        row(&format!("reserved bits {bits:#x}"), part(FIN | bits | opcode::TEXT, b"[]"), PROTOCOL);
    }
    for (name, control) in [("ping", opcode::PING), ("pong", opcode::PONG), ("close", opcode::CLOSE)] {
        row(&format!("long {name}"), part(FIN | control, &[0; 126]), PROTOCOL);
        row(&format!("{name} in parts"), part(control, b""), PROTOCOL);
    }
    row("close with one byte", frame(opcode::CLOSE, &[3]), PROTOCOL);
    row("close with bad UTF-8", frame(opcode::CLOSE, b"\x03\xe8\xff"), Close(&[1002, 1007]));
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        row(&format!("close code {code}"), frame(opcode::CLOSE, &code.to_be_bytes()), PROTOCOL);
    }
    row("close 1000", frame(opcode::CLOSE, &1000u16.to_be_bytes()), Close(&[1000]));
    row("close 4999", frame(opcode::CLOSE, &4999u16.to_be_bytes()), Close(&[4999, 1000]));
    row("close without code", frame(opcode::CLOSE, b""), Close(&[1000, 1005]));

    let announce = |length: u64| [&[FIN | opcode::TEXT, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    row("announced 100 MiB", announce(100 << 20), TOO_BIG);
    row("announced 2^62", announce(1 << 62), TOO_BIG);
    row("announced 2^64 - 1", announce(u64::MAX), Close(&[1009, 1002]));
    row("2 MiB", text(&vec![b' '; 2 << 20]), TOO_BIG);
    let piece = vec![b' '; 100_000];
    let many = (0..100).map(|n| part(if n == 0 { opcode::TEXT } else { opcode::CONTINUATION }, &piece));
    row("10 MB in parts", many.collect::<Vec<_>>().concat(), TOO_BIG);
    row("random bytes", b"\x8f\x13\x00\xfe\x51\x99\x02\x03".repeat(9), PROTOCOL);
    row("HTTP", request("GET", MOUNT, &[], None), PROTOCOL);
    rows.extend(bayeux_rows());
    rows
}

/// Well-formed frames that hold no good Bayeux.
fn bayeux_rows() -> Vec<(String, Vec<u8>, Answer)> {
    let mut rows = Vec::new();
    for payload in [
        "",
        " ",
        "[",
        "{",
        "1",
        "\"x\"",
        "true",
        "null",
        "[]",
        "[null]",
        "[1]",
        "{}",
        "[[]]",
        "\0",
        "\u{feff}[]",
        "undefined",
        r#"{"channel":5}"#,
        r#"{"channel":["/meta/connect"]}"#,
        r#"{"channel":"__proto__","data":1}"#,
        r#"{"channel":"/meta/connect"}"#,
        r#"{"channel":"/meta/connect","clientId":"x","connectionType":"websocket"}"#,
        r#"{"channel":"/meta/connect","clientId":{},"connectionType":[]}"#,
        r#"{"channel":"/meta/disconnect"}"#,
        r#"[{"channel":"/meta/subscribe","clientId":"__proto__","subscription":"/**"}]"#,
        r#"[{"\ud800":"\ud800"}]"#,
    ] {
        rows.push((format!("text {payload:?}"), frame(opcode::TEXT, payload.as_bytes()), StaysOpen));
    }
    let deep = "[".repeat(100_000);
    let crowd = json!(vec![json!({"channel": "/a", "data": 1}); 1001]).to_string();
    rows.push(("deep array".into(), frame(opcode::TEXT, deep.as_bytes()), Either));
    rows.push(("too many messages".into(), frame(opcode::TEXT, crowd.as_bytes()), Either));
    rows.push(("random binary".into(), frame(opcode::BINARY, &[0, 159, 146, 150, 255]), StaysOpen));
    rows.push(("empty binary".into(), frame(opcode::BINARY, b""), StaysOpen));
    rows.push(("pong of nothing".into(), frame(opcode::PONG, b"99999999999999999999"), StaysOpen));
    rows.push(("pong with garbage".into(), frame(opcode::PONG, b"\xff\0__proto__"), StaysOpen));
    rows.push(("many pings".into(), frame(opcode::PING, b"x").repeat(1000), StaysOpen));
    let parts = [frame_with(opcode::TEXT, MASK, b"["), frame(opcode::PING, b""), frame_with(FIN, MASK, b"]")].concat();
    rows.push(("ping between parts".into(), parts, StaysOpen));
    rows.push((
        "empty parts".into(),
        [frame_with(opcode::TEXT, MASK, b""), frame_with(FIN, MASK, b"")].concat(),
        StaysOpen,
    ));
    rows
}

/// Sends every row.
pub async fn run(report: &mut Report) {
    handshakes(report).await;
    for (name, bytes, answer) in rows() {
        let mut socket = RawSocket::open(report.addr, MOUNT).await;
        socket.send(&bytes).await;
        let outcome = check(answer, &mut socket).await;
        report.row(&format!("websocket: {name}"), outcome).await;
    }
    cut_frames(report).await;
}

async fn handshakes(report: &mut Report) {
    let without = |name: &str| UPGRADE.into_iter().filter(|(header, _)| *header != name).collect::<Vec<_>>();
    let with = |name: &'static str, value: &'static str| [without(name), vec![(name, value)]].concat();
    let mut requests = Vec::new();
    let rows = [
        ("no key", without("Sec-WebSocket-Key")),
        ("empty key", with("Sec-WebSocket-Key", "")),
        ("short key", with("Sec-WebSocket-Key", "c2hvcnQ=")),
        ("long key", with("Sec-WebSocket-Key", "dGhpcyBrZXkgaXMgbXVjaCB0b28gbG9uZw==")),
        ("key is not base64", with("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!==")),
        ("no version", without("Sec-WebSocket-Version")),
        ("version 12", with("Sec-WebSocket-Version", "12")),
        ("version 8", with("Sec-WebSocket-Version", "8")),
        ("version is no number", with("Sec-WebSocket-Version", "x")),
        ("no Connection: Upgrade", without("Connection")),
        ("no Upgrade", without("Upgrade")),
        ("another Upgrade", with("Upgrade", "h2c")),
    ];
    let mut refused = |name: &str, method, path, headers: &[_], allowed: &[u16]| {
        requests.push((name.to_owned(), request(method, path, headers, None), allowed.to_vec()));
    };
    for (name, headers) in &rows {
        refused(name, "GET", MOUNT, headers, &[400, 426]);
    }
    refused("POST", "POST", MOUNT, &UPGRADE, &[400]);
    refused("outside the mounts", "GET", "/elsewhere", &UPGRADE, &[404]);
    for (name, bytes, allowed) in requests {
        let response = exchange(report.addr, &bytes).await;
        let right = response.as_ref().is_ok_and(|response| allowed.contains(&response.status.as_u16()));
        let outcome = if right { Ok(()) } else { Err(format!("expected {allowed:?}, got {response:?}")) };
        report.row(&format!("websocket: {name}"), outcome).await;
    }
}

async fn check(answer: Answer, socket: &mut RawSocket) -> Result<(), String> {
    if matches!(answer, StaysOpen | Either) {
        socket.send_text(&json!({"channel": "/probe", "data": 1, "id": "probe"}).to_string()).await;
    }
    loop {
        let frame = match timeout(PATIENCE, socket.next()).await {
            Ok(Some(frame)) => frame,
            Ok(None) if matches!(answer, Either) => return Ok(()),
            Ok(None) => return Err(format!("expected {answer:?}, the connection ended without a close frame")),
            Err(_) => return Err(format!("expected {answer:?}, nothing came")),
        };
        match (answer, frame.close_code()) {
            (Close(codes), Some(code)) if codes.contains(&code) => return Ok(()),
            (Either, Some(_)) => return Ok(()),
            (_, Some(code)) => return Err(format!("expected {answer:?}, closed with {code}")),
            (StaysOpen | Either, None) if is_probe_reply(&frame) => return Ok(()),
            // Replies to what was sent before.
            (StaysOpen | Either, None) => {}
            (Close(_), None) => return Err(format!("expected {answer:?}, got {frame:?}")),
        }
    }
}

fn is_probe_reply(frame: &Frame) -> bool {
    frame.messages().iter().any(|message| message["id"] == "probe" && message["successful"] == true)
}

/// Connections that end in the middle of a handshake or frame.
async fn cut_frames(report: &mut Report) {
    let whole = frame(opcode::TEXT, br#"{"channel":"/a","data":"cut in the middle"}"#);
    for cut in [Cut::Fin, Cut::Rst] {
        for length in [0, 1, 2, 5, 20] {
            let mut connection = Connection::open(report.addr).await;
            connection.send(&request("GET", MOUNT, &UPGRADE, None)).await;
            let response = connection.response().await;
            connection.send(&whole[..length]).await;
            connection.cut(cut);
            let outcome = if response.status == 101 { Ok(()) } else { Err(format!("{response:?}")) };
            report.row(&format!("websocket: {cut:?} after {length} bytes of a frame"), outcome).await;
        }
    }
}
