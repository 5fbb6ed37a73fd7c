//! Content codings: how a body is compressed (RFC 9110, section 8.4).
//!
//! The case of names does not matter, `x-gzip` is gzip (section 8.4.1.3), and several codings are
//! removed in the reverse order of the header.

use std::io::{self, Read};
use std::time::Instant;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ureq::http::HeaderMap;

use super::field::list;

/// The `Accept-Encoding` of requests.
pub(super) const ACCEPTED: &str = "gzip";
/// Codings of one body, at most. One is usual; each further one makes a small body more costly.
const MOST: usize = 3;

/// A supported coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
}

/// The codings of a body in the order of the header, without `identity`.
///
/// # Errors
/// An unsupported coding, or too many codings.
pub(super) fn of(headers: &HeaderMap) -> Result<Vec<Coding>, String> {
    let mut codings = Vec::new();
    for name in list(headers, "content-encoding").split(',') {
        let name = name.trim();
        match name.to_ascii_lowercase().as_str() {
            "" | "identity" => {}
            "gzip" | "x-gzip" => codings.push(Coding::Gzip),
            "deflate" => codings.push(Coding::Deflate),
            _ => {
                return Err(format!(
                    "answered with the content coding `{name}`, which is not supported: {ACCEPTED} was asked for"
                ));
            }
        }
    }
    if codings.len() > MOST {
        return Err(format!("answered with more than {MOST} content codings"));
    }
    Ok(codings)
}

/// The decompressed body. It can be read until `deadline`, so even endless data ends in time.
pub(super) fn unpack<'b>(
    body: impl Read + 'b,
    codings: &[Coding],
    deadline: Instant,
) -> io::Result<Box<dyn Read + 'b>> {
    let mut unpacked: Box<dyn Read + 'b> = Box::new(body);
    for coding in codings.iter().rev() {
        let packed = Until {
            inner: unpacked,
            deadline,
        };
        unpacked = match coding {
            Coding::Gzip => Box::new(MultiGzDecoder::new(packed)),
            Coding::Deflate => inflate(packed)?,
        };
    }
    Ok(unpacked)
}

/// The `deflate` coding is zlib's format (RFC 1950). Some servers send bare deflate data (RFC 1951)
/// under that name, and browsers accept it.
fn inflate<'b>(mut packed: impl Read + 'b) -> io::Result<Box<dyn Read + 'b>> {
    let mut start = Vec::new();
    packed.by_ref().take(2).read_to_end(&mut start)?;
    let zlib = matches!(*start, [method, flags]
        if method & 0x0f == 8 && u16::from_be_bytes([method, flags]).is_multiple_of(31));
    let packed = io::Cursor::new(start).chain(packed);
    Ok(if zlib {
        Box::new(ZlibDecoder::new(packed))
    } else {
        Box::new(DeflateDecoder::new(packed))
    })
}

/// Fails once its deadline has passed.
struct Until<R> {
    inner: R,
    deadline: Instant,
}

impl<R: Read> Read for Until<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.inner.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::read::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::time::Duration;

    const TEXT: &[u8] = b"{\"text\": \"packed, once or more often\"}";

    fn read(packing: impl Read) -> Vec<u8> {
        let (mut packing, mut bytes) = (packing, Vec::new());
        packing.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        read(GzEncoder::new(bytes, Compression::fast()))
    }

    fn codings(lines: &[&str]) -> Result<Vec<Coding>, String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("content-encoding", line.parse().unwrap());
        }
        of(&headers)
    }

    #[test]
    fn names_are_read_as_they_are_sent() {
        use Coding::{Deflate, Gzip};
        for (lines, expected) in [
            (vec![], vec![]),
            (vec![""], vec![]),
            (vec!["identity"], vec![]),
            (vec!["GZIP"], vec![Gzip]),
            (vec!["x-gzip"], vec![Gzip]),
            (vec!["X-GZip"], vec![Gzip]),
            (vec!["identity, gzip"], vec![Gzip]),
            (vec![", gzip ,"], vec![Gzip]),
            (vec!["Deflate"], vec![Deflate]),
            (vec!["deflate, gzip"], vec![Deflate, Gzip]),
            (vec!["deflate", "gzip"], vec![Deflate, Gzip]),
        ] {
            assert_eq!(codings(&lines), Ok(expected), "{lines:?}");
        }
        let unknown = codings(&["gzip, BR"]).unwrap_err();
        assert!(unknown.contains("`BR`"), "{unknown}");
        assert!(codings(&["gzip, gzip, gzip, gzip"]).is_err());
    }

    #[test]
    fn each_coding_and_several_are_taken_off() {
        use Coding::{Deflate, Gzip};
        let zlib = |bytes: &[u8]| read(ZlibEncoder::new(bytes, Compression::best()));
        let bare = read(DeflateEncoder::new(TEXT, Compression::default()));
        let two_members = [gzip(&TEXT[..10]), gzip(&TEXT[10..])].concat();
        for (body, codings) in [
            (TEXT.to_vec(), vec![]),
            (gzip(TEXT), vec![Gzip]),
            (two_members, vec![Gzip]),
            (zlib(TEXT), vec![Deflate]),
            (bare, vec![Deflate]),
            (gzip(&zlib(TEXT)), vec![Deflate, Gzip]),
            (zlib(&gzip(TEXT)), vec![Gzip, Deflate]),
        ] {
            let later = Instant::now() + Duration::from_secs(60);
            let unpacked = unpack(&*body, &codings, later).unwrap();
            assert_eq!(read(unpacked), TEXT, "{codings:?}");
        }
    }

    #[test]
    fn unpacking_ends_at_the_deadline() {
        // A million empty members, compressed once more: much work for an empty body.
        let nothing = gzip(b"").repeat(1_000_000);
        let packed = gzip(&nothing);
        let now = Instant::now();
        let mut unpacked = unpack(&*packed, &[Coding::Gzip, Coding::Gzip], now).unwrap();
        let error = unpacked.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
