//! Header blocks: name/value pairs, compressed with one zlib context per direction.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::SpdyError;

/// Names that the compression dictionary of SPDY/3 holds with their lengths.
const NAMES: [&str; 65] = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// The rest of the dictionary.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

/// Longest decompressed header block, bytes.
const MAX_BLOCK: usize = 64 * 1024;
/// Most headers of a block.
const MAX_HEADERS: u32 = 100;

fn dictionary() -> Vec<u8> {
    let mut out = Vec::with_capacity(1423);
    for name in NAMES {
        out.put_u32(u32::try_from(name.len()).unwrap_or_default());
        out.put_slice(name.as_bytes());
    }
    out.put_slice(TEXT.as_bytes());
    out
}

/// Compresses the header blocks of one direction, in the order in which they are sent.
pub(super) struct Encoder(Compress);

impl Encoder {
    pub(super) fn new() -> Result<Self, SpdyError> {
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(&dictionary()).map_err(|_| SpdyError::Protocol("dictionary"))?;
        Ok(Self(zlib))
    }

    /// A compressed block.
    pub(super) fn encode(&mut self, headers: &[(String, String)]) -> Result<Bytes, SpdyError> {
        let mut plain = BytesMut::new();
        let length = |n: usize| u32::try_from(n).map_err(|_| SpdyError::Protocol("header too long"));
        plain.put_u32(length(headers.len())?);
        for (name, value) in headers {
            for text in [name.to_ascii_lowercase().as_str(), value] {
                plain.put_u32(length(text.len())?);
                plain.put_slice(text.as_bytes());
            }
        }
        let mut out = Vec::with_capacity(plain.len() + 64);
        let start = self.0.total_in();
        loop {
            let done = usize::try_from(self.0.total_in() - start).unwrap_or(plain.len());
            out.reserve(256);
            let status = self.0.compress_vec(&plain[done..], &mut out, FlushCompress::Sync);
            status.map_err(|_| SpdyError::Protocol("header compression"))?;
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(plain.len());
            if taken == plain.len() && out.len() < out.capacity() {
                return Ok(out.into());
            }
        }
    }
}

/// Decompresses the header blocks of one direction, in the order in which they arrive.
pub(super) struct Decoder(Decompress);

impl Decoder {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Names (lower case) and values.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
        parse(&self.inflate(block)?).ok_or(SpdyError::Protocol("malformed header block"))
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, SpdyError> {
        const BROKEN: SpdyError = SpdyError::Protocol("header block does not decompress");
        let mut out = Vec::with_capacity(4 * block.len() + 256);
        let start = self.0.total_in();
        let mut needs_dictionary = start == 0;
        loop {
            let done = usize::try_from(self.0.total_in() - start).unwrap_or(block.len());
            if out.len() == out.capacity() {
                out.reserve(1024);
            }
            match self.0.decompress_vec(&block[done..], &mut out, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(BROKEN),
                Ok(Status::Ok | Status::BufError) => {}
                Err(error) if needs_dictionary && error.needs_dictionary().is_some() => {
                    needs_dictionary = false;
                    self.0.set_dictionary(&dictionary()).map_err(|_| BROKEN)?;
                    continue;
                }
                Err(_) => return Err(BROKEN),
            }
            if out.len() > MAX_BLOCK {
                return Err(SpdyError::Protocol("header block too long"));
            }
            let taken = usize::try_from(self.0.total_in() - start).unwrap_or(block.len());
            if taken == block.len() && out.len() < out.capacity() {
                return Ok(out);
            }
            if taken == done && out.len() < out.capacity() {
                return Err(BROKEN);
            }
        }
    }
}

fn parse(mut plain: &[u8]) -> Option<Vec<(String, String)>> {
    let count = plain.try_get_u32().ok().filter(|count| *count <= MAX_HEADERS)?;
    let mut text = || {
        let length = usize::try_from(plain.try_get_u32().ok()?).ok()?;
        let (head, rest) = plain.split_at_checked(length)?;
        plain = rest;
        Some(String::from_utf8_lossy(head).into_owned())
    };
    (0..count).map(|_| Some((text()?.to_ascii_lowercase(), text()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn dictionary_is_the_one_of_the_protocol() {
        let (mut low, mut high) = (1_u32, 0_u32);
        for byte in dictionary() {
            low = (low + u32::from(byte)) % 65521;
            high = (high + low) % 65521;
        }
        assert_eq!((dictionary().len(), high << 16 | low), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_share_one_context() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::new());
        for round in 0..50 {
            let headers =
                pairs(&[("streamType", "stdout"), ("port", &round.to_string()), ("x", &"y".repeat(round * 40))]);
            let block = encoder.encode(&headers).unwrap();
            let lower: Vec<_> = headers.into_iter().map(|(n, v)| (n.to_ascii_lowercase(), v)).collect();
            assert_eq!(decoder.decode(&block).unwrap(), lower);
        }
    }

    #[test]
    fn hostile_blocks_are_refused() {
        assert!(Decoder::new().decode(b"no zlib at all").is_err());
        assert!(Decoder::new().decode(b"").is_err());
        let mut encoder = Encoder::new().unwrap();
        let bomb = encoder.encode(&pairs(&[("a", &"b".repeat(1 << 20))])).unwrap();
        assert!(matches!(Decoder::new().decode(&bomb), Err(SpdyError::Protocol("header block too long"))));
        assert_eq!(parse(&[0, 0, 0, 1, 0, 0, 0, 9, b'a']), None);
        assert_eq!(parse(&[0xff; 4]), None);
    }
}
