//! What a delivered message costs in CPU time: `cargo bench --bench write_path`, with `--json` for machines.
//!
//! Every way to write is a server in a process of its own, this binary or `weft`; the clients are here. One burst goes
//! to all sockets, and the next one starts when the last byte of it is here. The floor is a bare loop of blocking
//! writes. Rounds are interleaved, and ratios are taken within a round: this machine's noise hits both sides of them.
//! See `docs/performance.md`.

mod support;

use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream as StdStream};
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context as Task, Poll, ready};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use futures_util::{Sink, SinkExt, Stream};
use support::{Client, Process, Weft, arrive, raise_file_limit, source};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

const PAYLOAD: usize = 200;
const CHANNEL: &str = "/bench/room";
const SOCKETS: [usize; 2] = [100, 1000];
const BURSTS: [u8; 2] = [1, 16];
/// Messages of one measurement, for bursts of one and of many.
const MESSAGES: [usize; 2] = [20_000, 160_000];
/// Sockets and message sizes of the echo, which shows what reading costs.
const ECHO_SOCKETS: usize = 100;
const ECHO_BYTES: [usize; 2] = [PAYLOAD, 16 * 1024];
const ECHO_MESSAGES: usize = 10_000;

/// Measures the CPU time of a delivered message.
#[derive(Parser)]
struct Arguments {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// How often everything is measured; medians are printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Be the server of this name, for the clients at `--address`.
    #[arg(long, hide = true, requires = "address")]
    serve: Option<String>,
    #[arg(long, hide = true)]
    address: Option<SocketAddr>,
    #[arg(long, hide = true, default_value_t = 0)]
    sockets: usize,
    #[arg(long, hide = true, default_value_t = 0)]
    bytes: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Given by `cargo bench -- --test`: only the micro benches have something to try.
    #[arg(long, hide = true)]
    test: bool,
}

/// A way to write to many sockets.
#[derive(Clone, Copy)]
enum Path {
    /// One thread that writes to socket after socket, all frames of a burst in one write.
    Floor,
    /// A task for each socket that writes its frames by itself, vectored.
    OwnFrames,
    /// A task for each socket with tungstenite's codec.
    Codec(Codec),
}

#[derive(Clone, Copy)]
struct Codec {
    read_buffer: usize,
    write_buffer: usize,
    /// Reading and flushing side by side in one `poll_fn`, as `weft` does it; otherwise the usual `select!`, which
    /// flushes before it reads on.
    side_by_side: bool,
    /// One flush for all that is ready, instead of one for each message.
    coalesce: bool,
    /// Frames are collected in a buffer of our own that is freed after each flush. The codec's own buffer keeps the
    /// size of the largest burst for the life of the connection.
    drain: bool,
}

const KIB: usize = 1024;
const KEEPING: Codec =
    Codec { read_buffer: KIB, write_buffer: 64 * KIB, side_by_side: true, coalesce: true, drain: false };
const USUAL: Codec =
    Codec { read_buffer: 128 * KIB, write_buffer: 128 * KIB, side_by_side: false, coalesce: false, drain: false };
const FLOOR: &str = "floor";
const WEFT: &str = "weft";
const PATHS: [(&str, Path); 11] = [
    (FLOOR, Path::Floor),
    ("own-frames", Path::OwnFrames),
    ("read-1k", Path::Codec(KEEPING)),
    ("read-4k", Path::Codec(Codec { read_buffer: 4 * KIB, ..KEEPING })),
    ("read-128k", Path::Codec(Codec { read_buffer: 128 * KIB, ..KEEPING })),
    ("read-1k, write-4k", Path::Codec(Codec { write_buffer: 4 * KIB, ..KEEPING })),
    ("read-1k, write-1k", Path::Codec(Codec { write_buffer: KIB, ..KEEPING })),
    ("drain (chosen)", Path::Codec(Codec { write_buffer: 0, drain: true, ..KEEPING })),
    ("read-1k, select", Path::Codec(Codec { side_by_side: false, ..KEEPING })),
    ("read-1k, flush each", Path::Codec(Codec { coalesce: false, ..KEEPING })),
    ("library's defaults", Path::Codec(USUAL)),
];
/// Those whose reading is measured.
const ECHOING: [&str; 3] = ["read-1k", "read-4k", "read-128k"];

/// One line of the result.
#[derive(serde::Serialize)]
struct Row {
    test: &'static str,
    sockets: usize,
    burst: usize,
    bytes: usize,
    path: &'static str,
    microseconds_per_message: f64,
    /// To the floor, or to the first path where there is none.
    ratio: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Arguments { json, rounds, serve, address, sockets, bytes, bench, test } = arguments;
    if let (Some(name), Some(address)) = (serve, address) {
        raise_file_limit(sockets)?;
        let (_, path) = PATHS.iter().find(|(path, _)| *path == name).context("no such path")?;
        return be_server(*path, address, sockets, bytes);
    }
    if test || !bench {
        eprintln!("nothing is measured but by `cargo bench`");
        return Ok(());
    }
    let rows = tokio::runtime::Runtime::new()?.block_on(measure(rounds))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print(&rows);
    }
    Ok(())
}

async fn measure(rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for sockets in SOCKETS {
        raise_file_limit(sockets * (PATHS.len() + 1))?;
        let (weft, bytes) = Subject::weft(sockets).await?;
        let mut subjects = Vec::new();
        for (name, _) in PATHS {
            subjects.push(Subject::this(name, sockets, bytes).await?);
        }
        subjects.push(weft);
        for (burst, messages) in BURSTS.into_iter().zip(MESSAGES) {
            let mut samples = vec![Vec::new(); subjects.len()];
            for _ in 0..rounds {
                for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
                    samples.push(subject.fan_out(burst, messages).await?);
                }
            }
            let names = subjects.iter().map(|subject| subject.name);
            summarise(&mut rows, names.zip(samples), ("fan-out", sockets, burst.into(), bytes));
        }
    }
    for bytes in ECHO_BYTES {
        let mut subjects = Vec::new();
        for name in ECHOING {
            subjects.push(Subject::this(name, ECHO_SOCKETS, bytes).await?);
        }
        let mut samples = vec![Vec::new(); subjects.len()];
        for _ in 0..rounds {
            for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
                samples.push(subject.echo(bytes).await?);
            }
        }
        summarise(&mut rows, ECHOING.into_iter().zip(samples), ("echo", ECHO_SOCKETS, 1, bytes));
    }
    Ok(rows)
}

/// A server with its clients.
struct Subject {
    name: &'static str,
    process: Process,
    driver: Driver,
    /// Messages that have arrived, each as `permits` permits.
    received: Arc<Semaphore>,
    permits: usize,
    sockets: usize,
}

/// Makes a server send.
enum Driver {
    Publisher(Box<Client>),
    /// Takes the length of the burst; with the sockets, for the echo.
    Control(TcpStream, Vec<OwnedWriteHalf>),
}

impl Subject {
    /// `weft` with its subscribers; gives also the length of the payload that they get.
    async fn weft(sockets: usize) -> Result<(Self, usize)> {
        let Weft { process, address } = Weft::start().await?;
        let mut publisher = Box::new(Client::open(address, source(0)).await?);
        let received = Arc::new(Semaphore::new(0));
        let mut bytes = 0;
        for number in 0..sockets {
            let mut client = Client::open(address, source(number)).await?;
            client.bind(CHANNEL).await?;
            if number == 0 {
                publisher.publish(CHANNEL, &"x".repeat(PAYLOAD), 1).await?;
                bytes = client.text().await?.len();
            }
            tokio::spawn(client.read_on(received.clone()));
        }
        let driver = Driver::Publisher(publisher);
        Ok((Self { name: WEFT, process, driver, received, permits: 1, sockets }, bytes))
    }

    /// This binary as the server. It connects to us: TCP does not mind, and its port need not be told.
    async fn this(name: &'static str, sockets: usize, bytes: usize) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--serve", name, "--address", &listener.local_addr()?.to_string()]);
        command.args(["--sockets", &sockets.to_string(), "--bytes", &bytes.to_string()]);
        let process = Process::start(&mut command)?;
        let (control, _) = listener.accept().await?;
        control.set_nodelay(true)?;
        let received = Arc::new(Semaphore::new(0));
        let mut writers = Vec::new();
        for _ in 0..sockets {
            let (tcp, _) = listener.accept().await?;
            tcp.set_nodelay(true)?;
            let (mut reader, writer) = tcp.into_split();
            writers.push(writer);
            let received = received.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                    received.add_permits(count);
                }
                received.close();
            });
        }
        let permits = header(bytes, false).len() + bytes;
        Ok(Self { name, process, driver: Driver::Control(control, writers), received, permits, sockets })
    }

    /// CPU microseconds of the server for each message delivered.
    async fn fan_out(&mut self, burst: u8, messages: usize) -> Result<f64> {
        let in_burst = self.sockets * usize::from(burst);
        let bursts = messages.div_ceil(in_burst);
        let before = self.process.cpu()?;
        for _ in 0..bursts {
            match &mut self.driver {
                Driver::Publisher(client) => client.publish(CHANNEL, &"x".repeat(PAYLOAD), burst.into()).await?,
                Driver::Control(control, _) => control.write_u8(burst).await?,
            }
            arrive(&self.received, in_burst * self.permits).await?;
        }
        let used = self.process.cpu()?.saturating_sub(before);
        Ok(used.as_secs_f64() * 1e6 / (bursts * in_burst) as f64)
    }

    /// CPU microseconds of the server for each message read and sent back.
    async fn echo(&mut self, bytes: usize) -> Result<f64> {
        let Driver::Control(_, writers) = &mut self.driver else { return Ok(f64::NAN) };
        let mut frame = header(bytes, true);
        frame.resize(frame.len() + bytes, b'x');
        let times = ECHO_MESSAGES.div_ceil(writers.len());
        let before = self.process.cpu()?;
        for _ in 0..times {
            for writer in &mut *writers {
                writer.write_all(&frame).await?;
            }
            arrive(&self.received, writers.len() * self.permits).await?;
        }
        let used = self.process.cpu()?.saturating_sub(before);
        Ok(used.as_secs_f64() * 1e6 / (times * writers.len()) as f64)
    }
}

/// Medians, of the times and of the ratios within each round.
fn summarise(
    rows: &mut Vec<Row>,
    samples: impl Iterator<Item = (&'static str, Vec<f64>)>,
    (test, sockets, burst, bytes): (&'static str, usize, usize, usize),
) {
    let samples: Vec<_> = samples.collect();
    let Some((_, floor)) = samples.first() else { return };
    for (path, times) in &samples {
        let ratios = times.iter().zip(floor).map(|(time, floor)| time / floor).collect();
        let microseconds_per_message = median(times.clone());
        rows.push(Row { test, sockets, burst, bytes, path, microseconds_per_message, ratio: median(ratios) });
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(rows: &[Row]) {
    println!("test     sockets  burst   bytes  path                   µs/message   ratio");
    for Row { test, sockets, burst, bytes, path, microseconds_per_message: time, ratio } in rows {
        println!("{test:<8} {sockets:>7} {burst:>6} {bytes:>7}  {path:<22} {time:>10.3} {ratio:>7.2}");
    }
}

/// A text frame's header, for a client with a mask that changes nothing.
fn header(length: usize, mask: bool) -> Vec<u8> {
    let mask_bit = if mask { 0x80 } else { 0 };
    let mut header = vec![0x81];
    // Nothing longer than 64 KiB is measured.
    match u16::try_from(length).unwrap_or(u16::MAX) {
        length @ 0..126 => header.push(mask_bit | length as u8),
        length => {
            header.push(mask_bit | 126);
            header.extend(length.to_be_bytes());
        }
    }
    if mask {
        header.extend([0; 4]);
    }
    header
}

fn be_server(path: Path, address: SocketAddr, sockets: usize, bytes: usize) -> Result<()> {
    match path {
        Path::Floor => be_floor(address, sockets, bytes),
        path => tokio::runtime::Runtime::new()?.block_on(be_tasks(path, address, sockets, bytes)),
    }
}

fn be_floor(address: SocketAddr, sockets: usize, bytes: usize) -> Result<()> {
    let mut control = StdStream::connect(address)?;
    let connect = |_| {
        let tcp = StdStream::connect(address)?;
        tcp.set_nodelay(true).map(|()| tcp)
    };
    let mut sockets: Vec<_> = (0..sockets).map(connect).collect::<Result<_, _>>()?;
    let mut frame = header(bytes, false);
    frame.resize(frame.len() + bytes, b'x');
    let mut burst = [0];
    while control.read_exact(&mut burst).is_ok() {
        let frames = frame.repeat(burst[0].into());
        for socket in &mut sockets {
            socket.write_all(&frames)?;
        }
    }
    Ok(())
}

async fn be_tasks(path: Path, address: SocketAddr, sockets: usize, bytes: usize) -> Result<()> {
    let mut control = TcpStream::connect(address).await?;
    let payload = Bytes::from(vec![b'x'; bytes]);
    let mut queues = Vec::new();
    for _ in 0..sockets {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let (queue, bursts) = mpsc::unbounded_channel();
        queues.push(queue);
        // An error means that the clients are gone.
        match path {
            Path::Codec(codec) => drop(tokio::spawn(codec.serve(tcp, payload.clone(), bursts))),
            _ => drop(tokio::spawn(own_frames(tcp, payload.clone(), bursts))),
        }
    }
    while let Ok(burst) = control.read_u8().await {
        for queue in &queues {
            ensure!(queue.send(burst).is_ok(), "a socket's task has ended");
        }
    }
    Ok(())
}

async fn own_frames(mut tcp: TcpStream, payload: Bytes, mut bursts: mpsc::UnboundedReceiver<u8>) -> Result<()> {
    let header = header(payload.len(), false);
    loop {
        tokio::select! {
            ready = tcp.readable() => {
                ready?;
                // Clients say nothing in this test: it can only be the end.
                if matches!(tcp.try_read(&mut [0]), Ok(0)) {
                    return Ok(());
                }
            }
            Some(burst) = bursts.recv() => {
                let frame = [&header[..], &payload[..]];
                let mut slices: Vec<_> =
                    std::iter::repeat_n(frame, burst.into()).flatten().map(IoSlice::new).collect();
                let mut left = &mut slices[..];
                while !left.is_empty() {
                    let count = tcp.write_vectored(left).await?;
                    IoSlice::advance_slices(&mut left, count);
                }
            }
        }
    }
}

impl Codec {
    async fn serve(self, tcp: TcpStream, payload: Bytes, bursts: mpsc::UnboundedReceiver<u8>) -> Result<()> {
        if self.drain {
            self.run(Drained { tcp, out: Vec::new(), written: 0 }, payload, bursts).await
        } else {
            self.run(tcp, payload, bursts).await
        }
    }

    async fn run<S>(self, stream: S, payload: Bytes, mut bursts: mpsc::UnboundedReceiver<u8>) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = WebSocketConfig::default()
            .read_buffer_size(self.read_buffer)
            .write_buffer_size(self.write_buffer)
            .max_write_buffer_size(usize::MAX);
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        let text = Utf8Bytes::try_from(payload)?;
        let mut unflushed = false;
        loop {
            tokio::select! {
                message = next(&mut socket, &mut unflushed) => {
                    if let Some(message) = message? {
                        socket.start_send_unpin(message)?;
                        unflushed = true;
                    }
                }
                Some(burst) = bursts.recv() => {
                    for _ in 0..burst {
                        socket.feed(Message::Text(text.clone())).await?;
                        if !self.coalesce {
                            socket.flush().await?;
                        }
                    }
                    if self.side_by_side {
                        unflushed = true;
                    } else {
                        socket.flush().await?;
                    }
                }
            }
        }
    }
}

/// Flushes, and gives the next message to be sent back; `None` when all is flushed.
async fn next<S>(socket: &mut WebSocketStream<S>, unflushed: &mut bool) -> Result<Option<Message>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|context| {
        let mut socket = Pin::new(&mut *socket);
        if *unflushed && socket.as_mut().poll_flush(context)?.is_ready() {
            *unflushed = false;
            return Poll::Ready(Ok(None));
        }
        socket.poll_next(context).map(|message| message.unwrap_or(Err(Error::ConnectionClosed)).map(Some))
    })
    .await
}

/// Collects what is written until it is flushed, and then frees the buffer.
struct Drained {
    tcp: TcpStream,
    out: Vec<u8>,
    /// So much of `out` is with the kernel.
    written: usize,
}

impl AsyncRead for Drained {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Task<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(task, buffer)
    }
}

impl AsyncWrite for Drained {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Task<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, out, written } = &mut *self;
        while *written < out.len() {
            *written += ready!(Pin::new(&mut *tcp).poll_write(task, &out[*written..]))?;
        }
        (*out, *written) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(task))?;
        Pin::new(&mut self.tcp).poll_shutdown(task)
    }
}
