//! What the benches share: server processes and what the kernel knows of them, and a Bayeux client.

pub mod process;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub use self::process::Process;

/// Sockets from one source address: below the number of ports that the kernel hands out.
const SOCKETS_PER_SOURCE: usize = 20_000;

/// The release build of `weft` on free ports.
pub struct Weft {
    pub process: Process,
    pub address: SocketAddr,
}

impl Weft {
    /// Starts it and waits until it serves. Connects are held for so long that none ends during a bench.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let ready = folder.path().join("ready.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.args(["--listen", "127.0.0.1:0", "--internal-listen", "127.0.0.1:0", "--timeout", "1h"]);
        command.args(["--log-level", "warn", "--ready-file"]).arg(&ready);
        let mut process = Process::start(&mut command)?;
        while !ready.exists() {
            if let Some(status) = process.ended()? {
                bail!("weft ended: {status}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let ready: Value = serde_json::from_slice(&std::fs::read(ready)?)?;
        let address = ready["listen"].as_str().context("no address in the ready file")?.parse()?;
        Ok(Self { process, address })
    }
}

/// A Bayeux client on a WebSocket. It does what it is told and nothing by itself, except to answer pings.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
    id: String,
}

impl Client {
    /// Opens the socket: no session yet.
    pub async fn open(server: SocketAddr, source: IpAddr) -> Result<Self> {
        let tcp = connect(server, source).await.context("cannot connect")?;
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let url = format!("ws://{server}/bayeux");
        let (socket, _) = tokio_tungstenite::client_async_with_config(url, tcp, Some(config)).await?;
        Ok(Self { socket, id: String::new() })
    }

    /// Makes a session that is subscribed to `channel` and bound to this socket, with a connect that is held.
    pub async fn bind(&mut self, channel: &str) -> Result<()> {
        let types = ["websocket"];
        let handshake =
            json!({ "channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": types, "id": "1" });
        let reply = self.call(&json!([handshake])).await?;
        self.id = reply[0]["clientId"].as_str().context("no clientId")?.to_owned();
        let subscribe =
            json!({ "channel": "/meta/subscribe", "clientId": self.id, "subscription": channel, "id": "2" });
        self.call(&json!([subscribe])).await?;
        self.call(&json!([self.connect("3")])).await?;
        self.send(&json!([self.connect("4")])).await
    }

    fn connect(&self, id: &str) -> Value {
        json!({ "channel": "/meta/connect", "clientId": self.id, "connectionType": "websocket", "id": id })
    }

    /// Publishes `count` messages in one frame.
    pub async fn publish(&mut self, channel: &str, data: &str, count: usize) -> Result<()> {
        let message = json!({ "channel": channel, "data": data });
        self.call(&Value::Array(vec![message; count])).await.map(drop)
    }

    /// Sends messages and waits for their replies, which all must say yes.
    async fn call(&mut self, messages: &Value) -> Result<Value> {
        self.send(messages).await?;
        let reply: Value = serde_json::from_str(&self.text().await?)?;
        let replies = reply.as_array().context("a reply must be an array")?;
        ensure!(replies.iter().all(|reply| reply["successful"] == true), "refused: {reply}");
        Ok(reply)
    }

    async fn send(&mut self, messages: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(messages.to_string())).await?)
    }

    /// The next text frame.
    pub async fn text(&mut self) -> Result<String> {
        loop {
            match self.socket.next().await.context("the server closed the socket")?? {
                Message::Text(text) => return Ok(text.to_string()),
                Message::Close(why) => bail!("the server closed the socket: {why:?}"),
                _ => {}
            }
        }
    }

    /// Reads to the end; each message adds a permit.
    pub async fn read_on(mut self, received: Arc<Semaphore>) {
        while self.text().await.is_ok() {
            received.add_permits(1);
        }
        // Who waits for permits must not wait for ever.
        received.close();
    }
}

/// A TCP connection from this address.
pub async fn connect(server: SocketAddr, source: IpAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    let tcp = socket.connect(server).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Where the client of this number comes from: one address has too few ports for many clients.
pub fn source(client: usize) -> IpAddr {
    // The last byte stays small: file limits end long before.
    Ipv4Addr::new(127, 0, 0, 2 + (client / SOCKETS_PER_SOURCE) as u8).into()
}

/// Waits for so many received messages.
pub async fn arrive(received: &Semaphore, count: usize) -> Result<()> {
    let count = u32::try_from(count)?;
    let permits = tokio::time::timeout(Duration::from_secs(60), received.acquire_many(count)).await;
    permits.context("messages did not arrive within a minute")?.context("a client lost its socket")?.forget();
    Ok(())
}

/// Lets this process have so many sockets.
pub fn raise_file_limit(sockets: usize) -> Result<()> {
    let wanted = u64::try_from(sockets)? + 100;
    let limit = rlimit::increase_nofile_limit(wanted)?;
    ensure!(limit >= wanted, "{sockets} sockets need {wanted} file descriptors, but the limit is {limit}");
    Ok(())
}
