//! The mark in the data of every published message: which run, stream and number it is, and when it was due.
//! Publishers write it, receivers look for it in the raw bytes of frames and answers.

use std::io::Write;

use memchr::memmem::Finder;

/// The shortest data that holds every mark, in bytes.
pub const SHORTEST: usize = 64;

/// What a message says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Which stream of messages.
    pub stream: u32,
    /// The how-many-th message of the stream, from 0.
    pub number: u64,
    /// When it was due, in microseconds since the start of the run.
    pub due: u64,
}

/// Writes and finds the marks of one run.
#[derive(Debug, Clone)]
pub(super) struct Stamps {
    prefix: String,
    finder: Finder<'static>,
    /// Length of the data, in bytes.
    size: usize,
}

impl Stamps {
    /// The marks of the run `run`, in data of `size` bytes.
    pub(super) fn new(run: u32, size: usize) -> Self {
        let prefix = format!("weft:{run:08x}:");
        let finder = Finder::new(&prefix).into_owned();
        Self { prefix, finder, size }
    }

    /// Appends data with a mark, padded to its size. Needs no quoting in JSON.
    pub(super) fn write(&self, out: &mut Vec<u8>, stamp: Stamp) {
        let start = out.len();
        // Writing to a vector cannot fail.
        let _ = write!(out, "{}{}:{}:{}:", self.prefix, stamp.stream, stamp.number, stamp.due);
        out.resize((start + self.size).max(out.len()), b'x');
    }

    /// Calls `each` for every mark of this run in `bytes`.
    pub(super) fn find(&self, bytes: &[u8], mut each: impl FnMut(Stamp)) {
        let mut at = 0;
        while let Some(found) = self.finder.find(&bytes[at..]) {
            at += found + self.prefix.len();
            if let Some((stamp, length)) = read(&bytes[at..]) {
                each(stamp);
                at += length;
            }
        }
    }
}

fn read(bytes: &[u8]) -> Option<(Stamp, usize)> {
    let (stream, first) = number(bytes)?;
    let (number_, second) = number(&bytes[first..])?;
    let (due, third) = number(&bytes[first + second..])?;
    let stamp = Stamp { stream: u32::try_from(stream).ok()?, number: number_, due };
    Some((stamp, first + second + third))
}

/// A decimal number up to its colon, and its length with it.
fn number(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?,
            b':' if at > 0 => return Some((value, at + 1)),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(stamps: &Stamps, bytes: &[u8]) -> Vec<Stamp> {
        let mut all = Vec::new();
        stamps.find(bytes, |stamp| all.push(stamp));
        all
    }

    #[test]
    fn what_is_written_is_found() {
        let stamps = Stamps::new(0xbeef, 200);
        let all = [
            Stamp { stream: 0, number: 0, due: 0 },
            Stamp { stream: 99_999, number: 12_345_678_901, due: 3_600_000_000 },
            Stamp { stream: 7, number: 1, due: 5 },
        ];
        let mut bytes = b"[".to_vec();
        for stamp in all {
            bytes.extend(br#"{"channel":"/a","data":""#);
            let start = bytes.len();
            stamps.write(&mut bytes, stamp);
            assert_eq!(bytes.len() - start, 200);
            bytes.extend(br#""},"#);
        }
        assert_eq!(found(&stamps, &bytes), all);
    }

    #[test]
    fn other_runs_and_broken_marks_are_not() {
        let stamps = Stamps::new(1, SHORTEST);
        let mut bytes = Vec::new();
        Stamps::new(2, SHORTEST).write(&mut bytes, Stamp { stream: 1, number: 1, due: 1 });
        bytes
            .extend(b"weft:00000001:1:x:2: weft:00000001:1:2 weft:00000001::: weft:00000001:1:99999999999999999999:1:");
        bytes.extend(b"weft:00000001:3:4:5:weft:00000001:1");
        assert_eq!(found(&stamps, &bytes), [Stamp { stream: 3, number: 4, due: 5 }]);
    }

    #[test]
    fn the_shortest_data_holds_the_longest_mark() {
        let stamps = Stamps::new(u32::MAX, SHORTEST);
        let mut bytes = Vec::new();
        stamps.write(&mut bytes, Stamp { stream: u32::MAX, number: 9_999_999_999_999, due: 86_400_000_000 * 30 });
        assert_eq!(bytes.len(), SHORTEST);
    }
}
