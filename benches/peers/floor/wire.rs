//! The server's side of WebSocket and HTTP, as little as the floor needs: the upgrade, frames in and frames out, posts and
//! their answers.

use std::ops::Range;

use anyhow::{Context, Result, bail};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// No frame of a client is longer.
const LONGEST: usize = 1 << 20;

/// A client's frame; its payload lies there in the bytes it was taken from, unmasked.
pub enum Frame {
    Text(Range<usize>),
    Ping(Range<usize>),
    Pong,
    Close,
}

/// Takes an upgrade request off the front, and gives the response; `None` while it is not complete.
pub fn take_upgrade(bytes: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        anyhow::ensure!(bytes.len() <= LONGEST, "a request too long");
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut key =
        fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key")).map(|(_, value)| value.trim());
    let key = key.next_back().context("not an upgrade")?;
    let accept = derive_accept_key(key.as_bytes());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    bytes.drain(..end + 4);
    Ok(Some(response.into_bytes()))
}

/// The post at the front: the length of the whole, and where its body lies there; `None` while it is not complete.
pub fn take_post(bytes: &[u8]) -> Result<Option<(usize, Range<usize>)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        anyhow::ensure!(bytes.len() <= LONGEST, "a request too long");
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length")).context("no length")?;
    let length: usize = length.1.trim().parse()?;
    anyhow::ensure!(length <= LONGEST, "a request too long");
    let body = end + 4..end + 4 + length;
    Ok((bytes.len() >= body.end).then_some((body.end, body)))
}

/// An answer with these messages.
pub fn response(messages: &[String]) -> Vec<u8> {
    let length = messages.iter().map(|message| message.len() + 1).sum::<usize>() + 1;
    let mut out = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n[");
    out += &messages.join(",");
    out.push(']');
    out.into_bytes()
}

/// The frame at the front, with the length of the whole, unmasked in place; `None` while it is not complete.
pub fn take_frame(bytes: &mut [u8]) -> Result<Option<(usize, Frame)>> {
    let [first, second, rest @ ..] = &*bytes else { return Ok(None) };
    let (wide, length) = match (second & 0x7f, rest) {
        (126, [a, b, ..]) => (2, usize::from(u16::from_be_bytes([*a, *b]))),
        (127, [a, b, c, d, e, f, g, h, ..]) => {
            (8, usize::try_from(u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))?)
        }
        (126 | 127, _) => return Ok(None),
        (length, _) => (0, usize::from(length)),
    };
    anyhow::ensure!(length <= LONGEST, "a frame too long");
    let kind = *first;
    let masked = second & 0x80 != 0;
    let start = 2 + wide + if masked { 4 } else { 0 };
    let end = start + length;
    if bytes.len() < end {
        return Ok(None);
    }
    if masked {
        let (head, tail) = bytes.split_at_mut(start);
        let mask = &head[start - 4..];
        // A mask of zeros changes nothing.
        if mask != [0; 4] {
            for (byte, mask) in tail[..length].iter_mut().zip(mask.iter().cycle()) {
                *byte ^= mask;
            }
        }
    }
    let frame = match kind {
        0x81 => Frame::Text(start..end),
        0x88 => Frame::Close,
        0x89 => Frame::Ping(start..end),
        0x8a => Frame::Pong,
        other => bail!("no use for a frame that begins with {other:#x}"),
    };
    Ok(Some((end, frame)))
}

/// Appends a frame. `first` is its first byte.
pub fn frame(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(first);
    match payload.len() {
        // Fits: below 126, and below 65536.
        length @ 0..126 => out.push(length as u8),
        length @ 126..65536 => {
            out.push(126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}
