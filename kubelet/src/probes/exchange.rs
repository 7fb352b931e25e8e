//! One HTTP/1.1 request and its answer on a connection that is used for nothing else.
//!
//! Probes are the kubelet's most frequent work: this does it with one write and mostly one read.

use http::header::{HOST, HeaderMap};
use http::uri::PathAndQuery;
use http::{HeaderName, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::http::Answer;
use super::runner::MAX_OUTPUT;

/// Longest head of an answer.
const MAX_HEAD: usize = 1 << 20;
/// Informational answers before the one that counts.
const MAX_INFORMATIONAL: usize = 5;
/// Fields of a head.
const MAX_FIELDS: usize = 128;
/// Bytes of a malformed answer that are shown.
const SHOWN: usize = 200;
const CHUNK: usize = 4096;

/// Sends a request and reads what comes back; of the body as much as is ever shown.
pub(super) async fn exchange<S>(
    stream: &mut S,
    path: &str,
    authority: &str,
    headers: &HeaderMap,
) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = request(path, authority, headers)?;
    stream.write_all(&request).await.map_err(|error| error.to_string())?;
    let mut input = Input { stream, bytes: Vec::with_capacity(CHUNK), at: 0 };
    for _ in 0..=MAX_INFORMATIONAL {
        let head = input.head().await?;
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            continue;
        }
        let body = input.body(&head).await;
        return Ok(Answer { status: head.status, location: head.location, body });
    }
    Err("net/http: too many 1xx informational responses".to_owned())
}

fn request(path: &str, authority: &str, headers: &HeaderMap) -> Result<Vec<u8>, String> {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = PathAndQuery::try_from(format!("{slash}{path}")).map_err(|error| error.to_string())?;
    let mut out = format!("GET {path} HTTP/1.1\r\nHost: ").into_bytes();
    out.extend(headers.get(HOST).map_or(authority.as_bytes(), |host| host.as_bytes()));
    for (name, value) in headers.iter().filter(|(name, _)| *name != HOST && *name != http::header::CONNECTION) {
        out.extend(b"\r\n");
        out.extend(canonical(name));
        out.extend(b": ");
        out.extend(value.as_bytes());
    }
    out.extend(b"\r\nConnection: close\r\n\r\n");
    Ok(out)
}

/// `user-agent` as `User-Agent`.
fn canonical(name: &HeaderName) -> impl Iterator<Item = u8> + '_ {
    let bytes = name.as_str().bytes();
    let before = std::iter::once(b'-').chain(name.as_str().bytes());
    bytes.zip(before).map(|(byte, before)| if before == b'-' { byte.to_ascii_uppercase() } else { byte })
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Known(u64),
    Chunks,
    UntilClosed,
}

#[derive(Debug, PartialEq)]
struct Head {
    status: StatusCode,
    location: Option<String>,
    length: Length,
}

impl Head {
    /// Reads the head at the beginning of some bytes, and tells how long it is; `None` until it is whole.
    fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(malformed(bytes, error)),
        };
        let code = response.code.unwrap_or_default();
        let status = StatusCode::from_u16(code).map_err(|_| format!("malformed HTTP status code \"{code}\""))?;
        let mut head = Self { status, location: None, length: Length::UntilClosed };
        let mut known = None;
        for field in response.headers.iter() {
            let value = String::from_utf8_lossy(field.value);
            if field.name.eq_ignore_ascii_case("location") {
                head.location = Some(value.into_owned());
            } else if field.name.eq_ignore_ascii_case("content-length") {
                known = Some(value.parse().map_err(|_| format!("bad Content-Length {value:?}"))?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
                head.length = Length::Chunks;
            }
        }
        if let (Some(length), Length::UntilClosed) = (known, head.length) {
            head.length = Length::Known(length);
        }
        if status.is_informational() || matches!(code, 204 | 304) {
            head.length = Length::Known(0);
        }
        Ok(Some((head, length)))
    }
}

fn malformed(bytes: &[u8], error: httparse::Error) -> String {
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let first = String::from_utf8_lossy(&first[..first.len().min(SHOWN)]).trim_end().to_owned();
    match error {
        httparse::Error::Status => {
            let code = first.split(' ').nth(1).unwrap_or_default();
            format!("malformed HTTP status code {code:?}")
        }
        httparse::Error::HeaderName | httparse::Error::HeaderValue => format!("malformed MIME header: {error}"),
        httparse::Error::TooManyHeaders => format!("net/http: server response has more than {MAX_FIELDS} headers"),
        _ => format!("malformed HTTP response {first:?}"),
    }
}

/// What comes, with what was read and not used yet.
struct Input<'a, S> {
    stream: &'a mut S,
    bytes: Vec<u8>,
    at: usize,
}

impl<S: AsyncRead + Unpin> Input<'_, S> {
    /// Reads more; `false` at the end.
    async fn more(&mut self) -> Result<bool, String> {
        self.bytes.reserve(CHUNK);
        let read = self.stream.read_buf(&mut self.bytes).await;
        read.map(|count| count > 0).map_err(|error| super::tcp::plain(&error))
    }

    /// Up to the empty line.
    async fn head(&mut self) -> Result<Head, String> {
        loop {
            if let Some((head, length)) = Head::parse(&self.bytes[self.at..])? {
                self.at += length;
                return Ok(head);
            }
            if self.bytes.len() - self.at > MAX_HEAD {
                return Err(format!("net/http: server response headers exceeded {MAX_HEAD} bytes; aborted"));
            }
            if !self.more().await? {
                let nothing = self.bytes.len() == self.at;
                return Err(if nothing { "EOF" } else { "unexpected EOF" }.to_owned());
            }
        }
    }

    /// As much of the body as is wanted; what breaks off is cut.
    async fn body(&mut self, head: &Head) -> Vec<u8> {
        let mut out = Vec::new();
        match head.length {
            Length::Known(length) => {
                let wanted = usize::try_from(length).unwrap_or(MAX_OUTPUT).min(MAX_OUTPUT);
                self.take(wanted, &mut out).await;
            }
            Length::UntilClosed => {
                self.take(MAX_OUTPUT, &mut out).await;
            }
            Length::Chunks => while out.len() < MAX_OUTPUT && self.chunk(&mut out).await {},
        }
        out
    }

    /// Moves bytes; `false` if the input ends before.
    async fn take(&mut self, count: usize, out: &mut Vec<u8>) -> bool {
        while self.bytes.len() - self.at < count {
            if !matches!(self.more().await, Ok(true)) {
                break;
            }
        }
        let end = self.bytes.len().min(self.at + count);
        out.extend_from_slice(&self.bytes[self.at..end]);
        let whole = end - self.at == count;
        self.at = end;
        whole
    }

    /// One chunk; `false` after the last.
    async fn chunk(&mut self, out: &mut Vec<u8>) -> bool {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            if line.len() > CHUNK || !self.take(1, &mut line).await {
                return false;
            }
        }
        let Ok(httparse::Status::Complete((_, size))) = httparse::parse_chunk_size(&line) else { return false };
        let Ok(size) = usize::try_from(size) else { return false };
        let wanted = size.min(MAX_OUTPUT - out.len());
        if size == 0 || !self.take(wanted, out).await || wanted < size {
            return false;
        }
        self.take(2, &mut Vec::new()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    /// The answer to a request, which is given in pieces, and what was asked.
    async fn ask(pieces: &[&str]) -> (Result<Answer, String>, String) {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        let pieces: Vec<String> = pieces.iter().map(|piece| (*piece).to_owned()).collect();
        let server = async move {
            let mut asked = vec![0; 4096];
            let count = far.read(&mut asked).await.unwrap();
            for piece in pieces {
                far.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            asked.truncate(count);
            String::from_utf8(asked).unwrap()
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-one", HeaderValue::from_static("1"));
        let client = exchange(&mut near, "/a?b=c", "10.0.0.1:80", &headers);
        tokio::join!(client, server)
    }

    #[tokio::test]
    async fn requests_are_whole() {
        let (answer, asked) = ask(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more"]).await;
        assert_eq!(asked, "GET /a?b=c HTTP/1.1\r\nHost: 10.0.0.1:80\r\nX-One: 1\r\nConnection: close\r\n\r\n");
        let answer = answer.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (200, b"ok".as_slice()));
        let mut host = HeaderMap::new();
        host.insert(HOST, HeaderValue::from_static("name"));
        assert!(request("x y", "a", &host).is_err());
        assert_eq!(request("x", "a", &host).unwrap(), b"GET /x HTTP/1.1\r\nHost: name\r\nConnection: close\r\n\r\n");
    }

    #[tokio::test]
    async fn answers_come_in_many_forms() {
        for (pieces, status, location, body) in [
            (vec!["HTTP/1.0 200\r\n\r\n", "bo", "dy"], 200, None, "body"),
            (vec!["HTTP/1.1 20", "4 No Content\r\nA: b\r", "\n\r\n"], 204, None, ""),
            (vec!["HTTP/1.1 302 Found\nLocation: /x\n\nrest"], 302, Some("/x"), "rest"),
            (vec!["HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\nx"], 500, None, "x"),
            (
                vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r", "\n2;x=y\r\nde\r\n0\r\n\r\n"],
                200,
                None,
                "abcde",
            ),
            (vec!["HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut"], 200, None, "cut"),
        ] {
            let answer = ask(&pieces).await.0.unwrap_or_else(|error| panic!("{pieces:?}: {error}"));
            assert_eq!(
                (answer.status.as_u16(), answer.location.as_deref(), String::from_utf8_lossy(&answer.body).as_ref()),
                (status, location, body),
                "{pieces:?}"
            );
        }
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 * MAX_OUTPUT));
        assert_eq!(ask(&[&long]).await.0.unwrap().body.len(), MAX_OUTPUT);
    }

    #[tokio::test]
    async fn nonsense_is_an_error() {
        for (pieces, expected) in [
            (vec![], "EOF"),
            (vec!["HTTP/1.1 200 OK\r\n"], "unexpected EOF"),
            (vec!["SSH-2.0-x\r\n\r\n"], "malformed HTTP response \"SSH-2.0-x\""),
            (vec!["HTTP/1.1 abc\r\n\r\n"], "malformed HTTP status code \"abc\""),
            (vec!["HTTP/1.1 200 OK\r\nnonsense\r\n\r\n"], "malformed MIME header: invalid header name"),
            (vec!["HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"], "bad Content-Length \"-1\""),
        ] {
            assert_eq!(ask(&pieces).await.0.err().as_deref(), Some(expected), "{pieces:?}");
        }
        let endless = "HTTP/1.1 103 Early\r\n\r\n".repeat(20);
        assert!(ask(&[&endless]).await.0.is_err());
    }
}
