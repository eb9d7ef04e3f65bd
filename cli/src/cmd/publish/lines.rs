//! Lines of bounded length out of a stream of any length.

use std::io::{BufRead, ErrorKind, Result};

/// What came of reading a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It is in the buffer, without its end.
    Whole,
    /// It was skipped: it has more bytes than may be; this many.
    TooLong(u64),
    /// There are no more.
    End,
}

/// Reads the next line into `line`, which is emptied first and never holds more than `most` bytes.
///
/// # Errors
/// Those of the stream.
pub(super) fn next(from: &mut impl BufRead, line: &mut Vec<u8>, most: usize) -> Result<Line> {
    line.clear();
    let mut length = 0u64;
    let mut any = false;
    loop {
        let chunk = match from.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        any |= !chunk.is_empty();
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        length += part.len() as u64;
        if length <= most as u64 {
            line.extend_from_slice(part);
        }
        let (used, done) = (part.len() + usize::from(end.is_some()), end.is_some() || chunk.is_empty());
        from.consume(used);
        if done {
            return Ok(match (any, length <= most as u64) {
                (false, _) => Line::End,
                (true, true) => Line::Whole,
                (true, false) => Line::TooLong(length),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn long_lines_are_skipped_without_being_held() {
        let input = [&b"ab\n\n"[..], &vec![b'x'; 1000], b"\nlast"].concat();
        for buffer in [1, 3, 4096] {
            let mut from = BufReader::with_capacity(buffer, &input[..]);
            let mut line = Vec::new();
            let mut seen = Vec::new();
            loop {
                let what = next(&mut from, &mut line, 10).unwrap();
                assert!(line.capacity() < 100);
                if what == Line::End {
                    break;
                }
                seen.push((what, String::from_utf8(line.clone()).unwrap()));
            }
            assert_eq!(seen[0], (Line::Whole, "ab".into()));
            assert_eq!(seen[1], (Line::Whole, String::new()));
            assert_eq!(seen[2].0, Line::TooLong(1000));
            assert_eq!(seen[3], (Line::Whole, "last".into()));
            assert_eq!(seen.len(), 4);
        }
    }
}
