//! WebSocket frames, as a client sees them: cuts what a server sent into messages, and frames what a client says.
//! Called by the sockets of the generator for every byte, so nothing is copied that can be looked at in place.

use thiserror::Error;

/// Text.
pub(super) const TEXT: u8 = 1;
/// Binary data.
const BINARY: u8 = 2;
/// The end of the connection.
pub(super) const CLOSE: u8 = 8;
/// "Are you there?"
pub(super) const PING: u8 = 9;
/// The answer to a ping.
pub(super) const PONG: u8 = 10;

/// The largest message that is taken, in bytes.
const LARGEST: usize = 64 * 1024 * 1024;
/// The longest head of a frame that a server sends, in bytes.
const LONGEST_HEAD: usize = 10;

/// What a server must not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    /// Reserved bits, or a masked frame.
    #[error("a frame that no server may send")]
    Forbidden,
    /// More than is taken.
    #[error("a message of more than 64 MiB")]
    TooLarge,
}

/// One frame, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame<'a> {
    /// The last frame of its message.
    last: bool,
    opcode: u8,
    payload: &'a [u8],
}

/// The first frame in `bytes` and its whole length; `None` while it is not complete.
fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let &[flags, length, ..] = bytes else { return Ok(None) };
    if flags & 0x70 != 0 || length & 0x80 != 0 {
        return Err(FrameError::Forbidden);
    }
    let (head, length) = match length {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (4, usize::from(u16::from_be_bytes([a, b]))),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..LONGEST_HEAD).and_then(|field| field.try_into().ok()) {
            Some(field) => (LONGEST_HEAD, usize::try_from(u64::from_be_bytes(field)).unwrap_or(usize::MAX)),
            None => return Ok(None),
        },
        short => (2, usize::from(short)),
    };
    if length > LARGEST {
        return Err(FrameError::TooLarge);
    }
    let Some(payload) = bytes.get(head..head + length) else { return Ok(None) };
    Ok(Some((Frame { last: flags & 0x80 != 0, opcode: flags & 0x0f, payload }, head + length)))
}

/// Puts together what arrives in pieces. Holds memory only while a message is incomplete.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// The beginning of a frame whose end has not arrived.
    rest: Vec<u8>,
    /// The beginning of a message of several frames.
    message: Vec<u8>,
}

impl Assembler {
    /// What stands before the next bytes to be read.
    pub(super) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// Takes the rest and what was read behind it, and gives every complete message to `each`, with its kind.
    pub(super) fn take(&mut self, bytes: &[u8], mut each: impl FnMut(u8, &[u8])) -> Result<(), FrameError> {
        let mut at = 0;
        while let Some((frame, length)) = first(&bytes[at..])? {
            at += length;
            match frame.opcode {
                0 | TEXT | BINARY if !frame.last || !self.message.is_empty() => {
                    if self.message.len() + frame.payload.len() > LARGEST {
                        return Err(FrameError::TooLarge);
                    }
                    self.message.extend_from_slice(frame.payload);
                    if frame.last {
                        each(TEXT, &std::mem::take(&mut self.message));
                    }
                }
                TEXT | BINARY => each(TEXT, frame.payload),
                kind => each(kind, frame.payload),
            }
        }
        // An empty vector holds no memory.
        self.rest = bytes[at..].to_vec();
        Ok(())
    }
}

/// Appends a frame whose payload `write` appends. Masked with zeros, as a client must and which leaves it readable.
pub(super) fn frame(out: &mut Vec<u8>, opcode: u8, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    // The longest head of a client: its place is taken first, what is not needed is given back.
    out.extend_from_slice(&[0; 14]);
    write(out);
    let length = out.len() - start - 14;
    let mut head = [0; 14];
    head[0] = 0x80 | opcode;
    let used = match length {
        0..126 => {
            head[1] = 0x80 | length as u8;
            6
        }
        126..65536 => {
            head[1] = 0x80 | 126;
            head[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            8
        }
        _ => {
            head[1] = 0x80 | 127;
            head[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            14
        }
    };
    out[start..start + used].copy_from_slice(&head[..used]);
    if used < 14 {
        out.copy_within(start + 14.., start + used);
        out.truncate(start + used + length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server frames.
    fn served(opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![opcode | if last { 0x80 } else { 0 }];
        match payload.len() {
            length @ 0..126 => bytes.push(length as u8),
            length @ 126..65536 => {
                bytes.push(126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    fn stream() -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let long = vec![b'l'; 300];
        let mut bytes = served(TEXT, true, b"first");
        bytes.extend(served(TEXT, false, b"in "));
        bytes.extend(served(PING, true, b"7"));
        bytes.extend(served(0, false, b"three "));
        bytes.extend(served(0, true, b"parts"));
        bytes.extend(served(TEXT, true, &long));
        bytes.extend(served(BINARY, true, b""));
        bytes.extend(served(CLOSE, true, &[3, 232]));
        let messages = vec![
            (TEXT, b"first".to_vec()),
            (PING, b"7".to_vec()),
            (TEXT, b"in three parts".to_vec()),
            (TEXT, long),
            (TEXT, Vec::new()),
            (CLOSE, vec![3, 232]),
        ];
        (bytes, messages)
    }

    /// Feeds pieces as a socket does: the rest stands before what was read.
    fn assembled(pieces: &[&[u8]]) -> Vec<(u8, Vec<u8>)> {
        let (mut assembler, mut messages) = (Assembler::default(), Vec::new());
        for piece in pieces {
            let bytes = [assembler.rest(), piece].concat();
            assembler.take(&bytes, |kind, payload| messages.push((kind, payload.to_vec()))).unwrap();
        }
        assert!(assembler.rest.is_empty() && assembler.rest.capacity() == 0, "nothing is kept");
        messages
    }

    #[test]
    fn split_at_every_byte() {
        let (bytes, messages) = stream();
        for at in 0..=bytes.len() {
            let (before, after) = bytes.split_at(at);
            assert_eq!(assembled(&[before, after]), messages, "split at {at}");
        }
    }

    #[test]
    fn byte_by_byte() {
        let (bytes, messages) = stream();
        assert_eq!(assembled(&bytes.chunks(1).collect::<Vec<_>>()), messages);
    }

    #[test]
    fn sixty_four_bit_lengths() {
        let payload = vec![b'x'; 70_000];
        let bytes = served(TEXT, true, &payload);
        for at in [0, 1, 2, 9, 10, 11, 69_000, bytes.len()] {
            let (before, after) = bytes.split_at(at);
            assert_eq!(assembled(&[before, after]), [(TEXT, payload.clone())], "split at {at}");
        }
    }

    #[test]
    fn what_no_server_may_send() {
        let take = |bytes: &[u8]| Assembler::default().take(bytes, |_, _| {});
        assert_eq!(take(&[0x81, 0x81, 0, 0, 0, 0, 0]), Err(FrameError::Forbidden));
        assert_eq!(take(&[0xc1, 1, 0]), Err(FrameError::Forbidden));
        assert_eq!(take(&[0x81, 127, 255, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::TooLarge));
    }

    #[test]
    fn what_a_client_sends() {
        for length in [0, 5, 125, 126, 65_535, 65_536] {
            let payload = vec![b'p'; length];
            let mut out = b"before".to_vec();
            frame(&mut out, TEXT, |out| out.extend_from_slice(&payload));
            let body = &out[6..];
            assert_eq!(body[0], 0x81);
            assert_eq!(body[1] & 0x80, 0x80, "masked");
            assert!(body.ends_with(&payload));
            let head = match length {
                0..126 => 6,
                126..65536 => 8,
                _ => 14,
            };
            assert_eq!(body.len(), head + length);
            assert_eq!(body[head - 4..head], [0; 4], "the mask");
        }
    }
}
