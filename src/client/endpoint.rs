//! Where a server is: its URL taken apart, and the way to it (TCP, TLS). Used by the links.

#[cfg(feature = "tls")]
use std::sync::Arc;

use http::Uri;
use tokio::net::TcpStream;

use super::ClientError;
use super::error::LinkError;

/// A URL of a Bayeux server, ready to be dialled.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    host: Box<str>,
    port: u16,
    /// Path and query.
    pub path: Box<str>,
    tls: Option<Tls>,
}

#[cfg(feature = "tls")]
pub(super) type Stream = tokio_util::either::Either<TcpStream, tokio_rustls::client::TlsStream<TcpStream>>;
#[cfg(not(feature = "tls"))]
pub(super) type Stream = TcpStream;

impl Endpoint {
    /// Takes `http`, `https`, `ws` and `wss`. Without a path it is `/bayeux`, as in Faye's client.
    pub(super) fn parse(url: &str, roots: &[u8]) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let (secure, usual) = match uri.scheme_str() {
            Some("http" | "ws") => (false, 80),
            Some("https" | "wss") => (true, 443),
            _ => return Err(wrong()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let path = match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
            None | Some("" | "/") => "/bayeux",
            Some(path) => path,
        };
        let tls = if secure { Some(Tls::new(roots)?) } else { None };
        Ok(Self { host: host.into(), port: uri.port_u16().unwrap_or(usual), path: path.into(), tls })
    }

    /// The `Host` header: with the port, unless it is the usual one.
    pub(super) fn authority(&self) -> String {
        let usual = if self.tls.is_some() { 443 } else { 80 };
        if self.port == usual { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Opens a connection. The caller sets a time limit.
    pub(super) async fn dial(&self) -> Result<Stream, LinkError> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, self.port)).await?;
        tcp.set_nodelay(true)?;
        self.secure(tcp, host).await
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, tcp: TcpStream, host: &str) -> Result<Stream, LinkError> {
        let Some(Tls(config)) = &self.tls else { return Ok(Stream::Left(tcp)) };
        let name = rustls::pki_types::ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        let stream = tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp).await?;
        Ok(Stream::Right(stream))
    }

    #[cfg(not(feature = "tls"))]
    async fn secure(&self, tcp: TcpStream, _host: &str) -> Result<Stream, LinkError> {
        Ok(tcp)
    }
}

/// Whom to trust.
#[cfg(feature = "tls")]
#[derive(Clone)]
struct Tls(Arc<rustls::ClientConfig>);

#[cfg(feature = "tls")]
impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

#[cfg(feature = "tls")]
impl Tls {
    /// Trusts what the system trusts, and these certificates (PEM).
    fn new(roots: &[u8]) -> Result<Self, ClientError> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};

        let mut store = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        // Old machines keep certificates that nobody can read; the others count.
        store.add_parsable_certificates(found.certs);
        let wrong = |error: String| ClientError::Tls(format!("the certificates: {error}"));
        let before = store.len();
        for root in CertificateDer::pem_slice_iter(roots) {
            let root = root.map_err(|error| wrong(error.to_string()))?;
            store.add(root).map_err(|error| wrong(error.to_string()))?;
        }
        if !roots.is_empty() && store.len() == before {
            return Err(wrong("none in there; PEM is expected".to_owned()));
        }
        if store.is_empty() {
            return Err(ClientError::Tls("no trusted certificates on this machine; name one".to_owned()));
        }
        // Named, because a program may hold several.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ClientError::Tls(error.to_string()))?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// Nothing to be had.
#[cfg(not(feature = "tls"))]
#[derive(Debug, Clone)]
struct Tls;

#[cfg(not(feature = "tls"))]
impl Tls {
    fn new(_roots: &[u8]) -> Result<Self, ClientError> {
        Err(ClientError::Tls("this program was built without it (feature `tls`)".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parse = |url: &str| Endpoint::parse(url, &[]);
        for (url, authority, path) in [
            ("http://a", "a", "/bayeux"),
            ("http://a/", "a", "/bayeux"),
            ("ws://a:8000/x/y?z=1", "a:8000", "/x/y?z=1"),
            ("http://[::1]:80/cometd", "[::1]", "/cometd"),
        ] {
            let endpoint = parse(url).expect(url);
            assert_eq!((&*endpoint.authority(), &*endpoint.path), (authority, path), "{url}");
        }
        for wrong in ["", "a", "/bayeux", "ftp://a/", "http://", "http:///x", "http://a b/"] {
            assert!(matches!(parse(wrong), Err(ClientError::Url(_))), "{wrong}");
        }
    }
}
