//! One connection to a host: name, TCP, proxy, TLS, and which HTTP came of it.
//!
//! Invariants:
//! - TCP_NODELAY is on: without it small writes wait 40 ms for an acknowledgement.
//! - Loopback is never reached through a proxy, nor what `NO_PROXY` names.
//! - A peer that has vanished is noticed within [`VANISHED`], whatever HTTP it
//!   spoke.

use super::{SetUp, dns::Resolver, tls};
use crate::config::Network;
use bytes::Bytes;
use http::{HeaderValue, Uri, uri::Authority, uri::Scheme};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use mesh::h2;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{error::Error, io, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tower_service::Service as _;

/// Until a peer that says nothing any more is given up.
const VANISHED: Duration = Duration::from_secs(30);
/// Of HTTP/2, also on connections without a call, so that a dead one is found
/// before a call finds it. Rarer than what providers take for abuse.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);
/// Largest head of an answer. A proxy in front of a provider may add cookies of
/// some KiB.
const MAX_HEAD: u32 = 64 << 10;

pub(super) type Request = http::Request<Full<Bytes>>;
type Whatever = Box<dyn Error + Send + Sync>;

/// Where requests go: what a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
}

pub(super) struct Connector {
    tcp: HttpConnector<Resolver>,
    proxies: Matcher,
    provider_tls: TlsConnector,
    proxy_tls: TlsConnector,
    streams: usize,
}

/// A connection and what drives it.
pub(super) enum Opened {
    Http1(
        http1::SendRequest<Full<Bytes>>,
        Box<http1::Connection<Io, Full<Bytes>>>,
        Option<Forward>,
    ),
    Http2(http2::SendRequest<Full<Bytes>>, Box<http2::Connection<Io, Full<Bytes>, TokioExecutor>>),
}

/// For a proxy that passes plain HTTP on: it wants whole addresses, and what it
/// may ask of us to prove who we are.
#[derive(Clone)]
pub(super) struct Forward(pub(super) Option<HeaderValue>);

pub(super) type Io = TokioIo<Box<dyn Socket>>;

pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Connector {
    /// `patience` is how long all addresses of a host together may take.
    pub(super) fn new(network: &Network, patience: Duration) -> Result<Self, SetUp> {
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(network.dns)?);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(patience));
        tcp.set_keepalive(Some(VANISHED / 2));
        tcp.set_keepalive_interval(Some(VANISHED / 4));
        tcp.set_keepalive_retries(Some(2));
        tcp.set_tcp_user_timeout(Some(VANISHED));
        let secret = |proxy: &Option<mesh::config::Secret>| {
            proxy.as_ref().map(|proxy| proxy.expose().to_owned()).unwrap_or_default()
        };
        let proxies = Matcher::builder()
            .https(secret(&network.proxies.https))
            .http(secret(&network.proxies.http))
            .no(network.proxies.none.clone())
            .build();
        let tls = |config: ClientConfig| TlsConnector::from(Arc::new(config));
        let (provider, proxy) = tls::configs(network.ca_file.as_deref())?;
        Ok(Self {
            tcp,
            proxies,
            provider_tls: tls(provider),
            proxy_tls: tls(proxy),
            streams: network.streams_per_connection,
        })
    }

    pub(super) async fn connect(&self, origin: &Origin) -> Result<Opened, Whatever> {
        let uri = origin.uri()?;
        let proxy = Some(&uri).filter(|uri| !is_loopback(uri));
        let proxy = proxy.and_then(|uri| self.proxies.intercept(uri));
        if origin.scheme == Scheme::HTTP {
            let (socket, forward) = match &proxy {
                None => (boxed(self.dial(uri).await?), None),
                Some(proxy) => {
                    let socket = self.reach(proxy).await?;
                    (socket, Some(Forward(proxy.basic_auth().cloned())))
                }
            };
            return http1(socket, forward).await;
        }
        let socket = match &proxy {
            None => boxed(self.dial(uri).await?),
            Some(proxy) => self.tunnel(proxy, uri).await?,
        };
        let socket = self.provider_tls.connect(origin.server_name()?, socket).await?;
        if socket.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(boxed(socket)).await
        } else {
            http1(boxed(socket), None).await
        }
    }

    async fn dial(&self, uri: Uri) -> Result<TcpStream, Whatever> {
        Ok(self.tcp.clone().call(uri).await?.into_inner())
    }

    async fn reach(&self, proxy: &Intercept) -> Result<Box<dyn Socket>, Whatever> {
        let socket = self.dial(proxy.uri().clone()).await?;
        if proxy.uri().scheme() != Some(&Scheme::HTTPS) {
            return Ok(boxed(socket));
        }
        let name = server_name(proxy.uri().host().unwrap_or_default())?;
        Ok(boxed(self.proxy_tls.connect(name, socket).await?))
    }

    async fn tunnel(&self, proxy: &Intercept, to: Uri) -> Result<Box<dyn Socket>, Whatever> {
        let socket = self.reach(proxy).await?;
        let mut socket = Some(TokioIo::new(socket));
        let reached = tower::service_fn(move |_: Uri| {
            std::future::ready(socket.take().ok_or_else(|| io::Error::other("used before")))
        });
        let mut tunnel = Tunnel::new(proxy.uri().clone(), reached);
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        Ok(boxed(tunnel.call(to).await?.into_inner()))
    }

    async fn http2(&self, socket: Box<dyn Socket>) -> Result<Opened, Whatever> {
        let (send, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(h2::STREAM_WINDOW)
            .initial_connection_window_size(h2::CONNECTION_WINDOW)
            .initial_max_send_streams(self.streams)
            .max_header_list_size(MAX_HEAD)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(socket))
            .await?;
        Ok(Opened::Http2(send, connection.into()))
    }
}

async fn http1(socket: Box<dyn Socket>, forward: Option<Forward>) -> Result<Opened, Whatever> {
    let (send, connection) = http1::Builder::new()
        .max_header_size(MAX_HEAD as usize)
        .handshake(TokioIo::new(socket))
        .await?;
    Ok(Opened::Http1(send, connection.into(), forward))
}

impl Origin {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme =
            uri.scheme().filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme))?;
        Some(Self { scheme: scheme.clone(), authority: uri.authority()?.clone() })
    }

    fn uri(&self) -> Result<Uri, http::Error> {
        let (scheme, authority) = (self.scheme.clone(), self.authority.clone());
        Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build()
    }

    fn server_name(&self) -> Result<ServerName<'static>, Whatever> {
        server_name(self.authority.host())
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, Whatever> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Ok(ServerName::try_from(bare.to_owned())?)
}

fn boxed(socket: impl Socket + 'static) -> Box<dyn Socket> {
    Box::new(socket)
}

/// As Go has it; curl would ask the proxy for what only we can reach.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}
