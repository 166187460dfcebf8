//! A small HTTP/1.1 client over a bare socket: sends exactly the bytes it is given, reads whole answers or streams,
//! and can cut the connection at any moment.

use std::io;
use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::soon;

/// One connection to a node.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The body with its transfer encoding removed.
    pub body: Vec<u8>,
}

/// How a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// In an orderly way: the peer reads end of file.
    Fin,
    /// The peer gets an error.
    Rst,
}

/// How the end of a body is found.
#[derive(Debug)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl Connection {
    /// Opens a connection.
    pub async fn open(addr: SocketAddr) -> Self {
        let stream = soon("a TCP connection", TcpStream::connect(addr)).await.expect("the node accepts connections");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { stream: BufReader::new(stream) }
    }

    /// Opens a connection, if the node takes one.
    pub async fn try_open(addr: SocketAddr) -> io::Result<Self> {
        let stream = soon("a TCP connection", TcpStream::connect(addr)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends bytes as they are. Errors are left to the following read: a node may answer early and close.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = soon("the node reads what is sent", self.stream.write_all(bytes)).await;
    }

    /// Reads one answer; panics if there is none.
    pub async fn response(&mut self) -> Response {
        self.try_response().await.expect("a complete HTTP answer").expect("an answer, not a closed connection")
    }

    /// Reads one answer; `None` if the connection ended before it began.
    pub async fn try_response(&mut self) -> io::Result<Option<Response>> {
        soon("an answer", self.answer()).await
    }

    /// As [`Connection::try_response`], without a limit.
    pub async fn answer(&mut self) -> io::Result<Option<Response>> {
        let Some((status, headers)) = self.head().await? else { return Ok(None) };
        let body = self.body(framing(status, &headers)?).await?;
        Ok(Some(Response { status, headers, body }))
    }

    /// Reads one answer, however long it takes: for held polls. Panics if there is none.
    pub async fn held_response(&mut self) -> Response {
        self.answer().await.expect("a complete HTTP answer").expect("an answer, not a closed connection")
    }

    /// Waits until the first byte of an answer has arrived, and leaves it unread.
    pub async fn answer_begins(&mut self) {
        let mut byte = [0];
        let count = soon("the first byte of an answer", self.stream.get_ref().peek(&mut byte)).await;
        assert_eq!(count.expect("the connection is open"), 1, "the node closed instead of answering");
    }

    /// Cuts the connection.
    pub fn cut(self, how: Cut) {
        if how == Cut::Rst {
            self.stream.get_ref().set_zero_linger().expect("SO_LINGER can be set");
        }
    }

    /// The bare socket, and what has been read of it but not used.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        let unused = self.stream.buffer().to_vec();
        (self.stream.into_inner(), unused)
    }

    /// Status line and headers; `None` if the connection ended first.
    pub async fn head(&mut self) -> io::Result<Option<(StatusCode, HeaderMap)>> {
        let status_line = match self.line().await? {
            line if line.is_empty() => return Ok(None),
            line => line,
        };
        let status =
            status_line.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| bad(&status_line))?;
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(Some((status, headers)));
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(&line))?;
            headers.append(name, HeaderValue::from_str(value.trim()).map_err(|_| bad(&line))?);
        }
    }

    /// One line without its end; empty at end of file.
    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    async fn body(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        match framing {
            Framing::Length(length) => {
                body.resize(length, 0);
                self.stream.read_exact(&mut body).await?;
            }
            Framing::Chunked => {
                while let Some(chunk) = self.chunk().await? {
                    body.extend_from_slice(&chunk);
                }
            }
            Framing::UntilClose => {
                self.stream.read_to_end(&mut body).await?;
            }
        }
        Ok(body)
    }

    /// The next chunk of a chunked body; `None` after the last.
    async fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = self.line().await?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).map_err(|_| bad(&size))?;
        let mut chunk = vec![0; size];
        self.stream.read_exact(&mut chunk).await?;
        self.line().await?;
        Ok(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    /// The next piece of a streamed body, chunked or not; `None` at its end or when the connection breaks.
    pub async fn piece(&mut self, chunked: bool) -> Option<Vec<u8>> {
        if chunked {
            return self.chunk().await.ok().flatten();
        }
        let mut piece = vec![0; 4096];
        let count = self.stream.read(&mut piece).await.unwrap_or(0);
        piece.truncate(count);
        Some(piece).filter(|piece| !piece.is_empty())
    }
}

/// The bytes of a request; `Host` and, where there is a body, `Content-Length` are added.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(body) = body {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    head += "\r\n";
    [head.as_bytes(), body.unwrap_or_default()].concat()
}

/// GETs a page on a fresh connection.
pub async fn get(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut connection = Connection::open(addr).await;
    connection.send(&request("GET", path, headers, None)).await;
    connection.response().await
}

/// A sample of a node's counters, by its name with labels; asked of the internal listener.
pub async fn sample(internal: SocketAddr, name: &str) -> f64 {
    let text = get(internal, "/metrics", &[]).await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no sample {name} in\n{text}"))
}

/// A POST of JSON.
pub fn json_request(path: &str, body: &[u8]) -> Vec<u8> {
    request("POST", path, &[("Content-Type", "application/json")], Some(body))
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the whole answer if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.text()))
    }

    /// Whether the node announced that it will close the connection.
    pub fn closes(&self) -> bool {
        self.headers.get("connection").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
    }
}

fn framing(status: StatusCode, headers: &HeaderMap) -> io::Result<Framing> {
    if status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return Ok(Framing::Length(0));
    }
    if headers.get("transfer-encoding").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Ok(Framing::Chunked);
    }
    match headers.get("content-length") {
        Some(value) => {
            let length = value.to_str().ok().and_then(|text| text.parse().ok());
            length.map(Framing::Length).ok_or_else(|| bad("Content-Length"))
        }
        None => Ok(Framing::UntilClose),
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
