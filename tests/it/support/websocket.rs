//! WebSocket clients: one that keeps the rules, one that writes any bytes and shows every frame.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::bayeux::MOUNT;
use super::http::{Connection, Cut, Response, request};
use super::soon;

/// The headers of a correct opening handshake.
pub const UPGRADE: [(&str, &str); 4] = [
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Frame types.
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// A client that keeps the rules: it answers pings whenever it reads, as every WebSocket stack does.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
}

impl Socket {
    /// Opens a socket on the default mount.
    pub async fn open(addr: SocketAddr) -> Self {
        let tcp = soon("a TCP connection", TcpStream::connect(addr)).await.expect("the node accepts connections");
        let url = format!("ws://{addr}{MOUNT}");
        let opened = soon("the opening handshake", tokio_tungstenite::client_async(url, tcp)).await;
        Self { stream: opened.expect("a WebSocket").0 }
    }

    /// As [`Socket::open`], with little room for what was not read yet.
    pub async fn open_narrow(addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 * 1024).expect("SO_RCVBUF can be set");
        let tcp = soon("a TCP connection", socket.connect(addr)).await.expect("the node accepts connections");
        let url = format!("ws://{addr}{MOUNT}");
        let opened = soon("the opening handshake", tokio_tungstenite::client_async(url, tcp)).await;
        Self { stream: opened.expect("a WebSocket").0 }
    }

    /// Sends messages as one text frame.
    pub async fn send(&mut self, messages: &Value) {
        self.stream.send(Message::text(messages.to_string())).await.expect("the socket is open");
    }

    /// The messages of the next data frame; `None` when the socket has ended.
    pub async fn next(&mut self) -> Option<Vec<Value>> {
        loop {
            match self.stream.next().await? {
                Ok(Message::Text(text)) => {
                    return Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")));
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends a close frame, and does not wait for the answer.
    pub async fn close(&mut self) {
        self.stream.send(Message::Close(None)).await.expect("the socket is open");
    }

    /// Ends the TCP connection in one direction: no close frame.
    pub async fn end(&mut self) {
        self.stream.get_mut().shutdown().await.expect("the socket is open");
    }

    /// Cuts the TCP connection: no close frame.
    pub fn cut(self) {
        let tcp = self.stream.get_ref();
        tcp.set_zero_linger().expect("SO_LINGER can be set");
    }
}

/// A received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The type, see [`opcode`].
    pub opcode: u8,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of a close frame; 1005 when it has none.
    pub fn close_code(&self) -> Option<u16> {
        let code = |bytes: &[u8]| bytes.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        (self.opcode == opcode::CLOSE).then(|| code(&self.payload))
    }

    /// The messages of a data frame.
    pub fn messages(&self) -> Vec<Value> {
        let text = String::from_utf8_lossy(&self.payload);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }
}

/// A client that writes whatever it is told.
#[derive(Debug)]
pub struct RawSocket {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl RawSocket {
    /// Opens a socket with a correct handshake.
    pub async fn open(addr: SocketAddr, path: &str) -> Self {
        let (response, socket) = Self::upgrade(addr, path, &UPGRADE).await;
        socket.unwrap_or_else(|| panic!("no WebSocket: {response:?}"))
    }

    /// Sends an opening handshake with these headers; gives the answer, and the socket if it was accepted.
    pub async fn upgrade(addr: SocketAddr, path: &str, headers: &[(&str, &str)]) -> (Response, Option<Self>) {
        let mut connection = Connection::open(addr).await;
        connection.send(&request("GET", path, headers, None)).await;
        let response = connection.response().await;
        let socket = (response.status == 101).then(|| Self::over(connection));
        (response, socket)
    }

    /// The socket that a connection has become.
    pub fn over(connection: Connection) -> Self {
        let (stream, unread) = connection.into_parts();
        // What is sent shall be with the node's kernel, not wait here for an acknowledgement.
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        Self { stream, unread }
    }

    /// Sends bytes as they are. Errors are left to the following read: a node may close early.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = soon("the node reads what is sent", self.stream.write_all(bytes)).await;
    }

    /// Sends nothing more, and still reads.
    pub async fn end_sending(&mut self) {
        self.stream.shutdown().await.expect("it can be shut down");
    }

    /// Cuts the connection.
    pub fn cut(self, how: Cut) {
        if how == Cut::Rst {
            self.stream.set_zero_linger().expect("SO_LINGER can be set");
        }
    }

    /// Sends one well-formed text frame.
    pub async fn send_text(&mut self, text: &str) {
        self.send(&frame(opcode::TEXT, text.as_bytes())).await;
    }

    /// The next frame, of any type; `None` when the connection has ended.
    pub async fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = take_frame(&mut self.unread) {
                return Some(frame);
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).await.unwrap_or(0);
            if count == 0 {
                return None;
            }
            self.unread.extend_from_slice(&bytes[..count]);
        }
    }

    /// Whether a whole frame was read that was not looked at yet: it came together with the one before.
    pub fn has_frame(&self) -> bool {
        take_frame(&mut self.unread.clone()).is_some()
    }

    /// The next frame that is not a ping or pong; pings are answered.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let received = self.next_frame().await?;
            match received.opcode {
                opcode::PING => self.send(&frame(opcode::PONG, &received.payload)).await,
                opcode::PONG => {}
                _ => return Some(received),
            }
        }
    }
}

/// One complete masked frame.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(0x80 | opcode, Some([1, 2, 3, 4]), payload)
}

/// A frame with this first byte (fin and reserved bits, opcode) and mask.
pub fn frame_with(first: u8, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(mask_bit | length as u8),
        length @ 126..=0xffff => {
            bytes.push(mask_bit | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(mask_bit | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// Takes one frame from the front; `None` while it is incomplete. Servers never mask and rarely fragment, so a
/// fragment is shown as it is.
fn take_frame(unread: &mut Vec<u8>) -> Option<Frame> {
    let (head, length) = match unread.get(1)? & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(*unread.get(2..4)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*unread.get(2..10)?.first_chunk()?)),
        length => (2, u64::from(length)),
    };
    let end = head + usize::try_from(length).expect("a frame that fits into memory");
    let payload = unread.get(head..end)?.to_vec();
    let opcode = unread[0] & 0x0f;
    unread.drain(..end);
    Some(Frame { opcode, payload })
}
