//! A proxy that misbehaves on request: cuts connections, holds them up in silence, loses replies, refuses WebSockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Forwards to one of its targets at a time, in turn. Ends when dropped, with all its connections.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    targets: Mutex<Vec<SocketAddr>>,
    accepted: AtomicUsize,
    /// Which connections are under a spell.
    spell: watch::Sender<Spell>,
    /// Replies that are still to be lost, each with its connection.
    losing: AtomicUsize,
    no_sockets: AtomicBool,
}

/// Connections with smaller numbers are concerned.
#[derive(Clone, Copy, Default)]
struct Spell {
    cut: usize,
    frozen: usize,
}

impl Proxy {
    /// Starts one on a free port.
    pub async fn start(targets: impl IntoIterator<Item = SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            targets: Mutex::new(targets.into_iter().collect()),
            accepted: AtomicUsize::new(0),
            spell: watch::Sender::new(Spell::default()),
            losing: AtomicUsize::new(0),
            no_sockets: AtomicBool::new(false),
        });
        let task = tokio::spawn(serve(listener, shared.clone()));
        Self { addr, shared, task }
    }

    /// The URL of Faye's mount behind it.
    pub fn url(&self) -> String {
        format!("http://{}/bayeux", self.addr)
    }

    /// From now on connections go to these; none refuses them.
    pub fn set_targets(&self, targets: impl IntoIterator<Item = SocketAddr>) {
        *self.shared.targets.lock() = targets.into_iter().collect();
    }

    /// Closes all connections that there are.
    pub fn cut(&self) {
        let accepted = self.accepted();
        self.shared.spell.send_modify(|spell| spell.cut = accepted);
    }

    /// Nothing comes through the connections that there are any more, and neither side is told.
    pub fn freeze(&self) {
        let accepted = self.accepted();
        self.shared.spell.send_modify(|spell| spell.frozen = accepted);
    }

    /// The next piece that a server sends is lost, and its connection closed.
    pub fn lose_reply(&self) {
        self.shared.losing.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether WebSockets are refused.
    pub fn refuse_sockets(&self, refuse: bool) {
        self.shared.no_sockets.store(refuse, Ordering::Relaxed);
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.spell.send_modify(|spell| spell.cut = usize::MAX);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
        let target = {
            let targets = shared.targets.lock();
            if targets.is_empty() { None } else { targets.get(number % targets.len()).copied() }
        };
        // Ends by the spell, with the proxy at the latest.
        tokio::spawn(connection(client, target, number, shared.clone()));
    }
}

async fn connection(mut client: TcpStream, target: Option<SocketAddr>, number: usize, shared: Arc<Shared>) {
    let mut spell = shared.spell.subscribe();
    let forwarded = async {
        let mut first = vec![0; 8192];
        let length = client.read(&mut first).await.ok()?;
        let head = String::from_utf8_lossy(&first[..length]).to_ascii_lowercase();
        if shared.no_sockets.load(Ordering::Relaxed) && head.contains("upgrade: websocket") {
            let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            client.write_all(answer).await.ok()?;
            return None;
        }
        let mut server = TcpStream::connect(target?).await.ok()?;
        server.write_all(&first[..length]).await.ok()?;
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            () = forward(from_client, to_server, number, &shared, false) => {}
            () = forward(from_server, to_client, number, &shared, true) => {}
        }
        None::<()>
    };
    tokio::select! {
        _ = forwarded => {}
        // The sender lives as long as `shared`.
        _ = spell.wait_for(|spell| number < spell.cut) => {}
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, number: usize, shared: &Shared, replies: bool) {
    let mut spell = shared.spell.subscribe();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            // An end does not come through either.
            let _ = spell.wait_for(|spell| number >= spell.frozen).await;
            return;
        };
        if spell.wait_for(|spell| number >= spell.frozen).await.is_err() {
            return;
        }
        let lose = |left: usize| left.checked_sub(1);
        if replies && shared.losing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lose).is_ok() {
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// TLS before a node, under the name `localhost`.
pub struct TlsFront {
    pub addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts one; gives the certificate of its authority, in PEM.
pub async fn tls(target: SocketAddr) -> (TlsFront, Vec<u8>) {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (ca_key, ca, key, certificate) = (path("ca-key.pem"), path("ca.pem"), path("key.pem"), path("certificate.pem"));
    let openssl = |arguments: &[&str]| {
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
            .args(arguments)
            .output()
            .expect("openssl runs; `./test.sh setup` installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    openssl(&["-subj", "/CN=authority", "-keyout", &ca_key, "-out", &ca]);
    let names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    let signed = ["-CA", &ca, "-CAkey", &ca_key, "-subj", "/CN=localhost", "-keyout", &key, "-out", &certificate];
    openssl(&[&signed[..], &names].concat());
    let pem = std::fs::read(&certificate).expect("made");
    let chain = CertificateDer::pem_slice_iter(&pem).map(|der| der.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_file(&key).expect("made");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate with its key");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let task = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            // Ends with its client.
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(tcp).await else { return };
                let Ok(mut server) = TcpStream::connect(target).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (TlsFront { addr, task }, std::fs::read(&ca).expect("made"))
}
