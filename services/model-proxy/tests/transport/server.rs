//! An HTTPS server that speaks HTTP/2 and counts what comes.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use std::{
    convert::Infallible,
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::broadcast,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a GOAWAY; what is under way is finished.
    Goodbye,
    /// At once.
    Dead,
}

pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) ca: PathBuf,
    counts: Arc<Counts>,
    end: broadcast::Sender<End>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    /// All that were ever accepted.
    connections: AtomicUsize,
    open: AtomicUsize,
    streams: AtomicUsize,
}

/// One certificate for all servers of these tests, and the file that holds it.
static IDENTITY: LazyLock<(ServerConfig, PathBuf)> = LazyLock::new(|| {
    let names = ["localhost", "127.0.0.1", "provider.test"].map(str::to_owned);
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let crypto = rustls::crypto::ring::default_provider().into();
    let mut config = ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = format!("skein-transport-{}.pem", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, cert.pem()).unwrap();
    (config, file)
});

pub(crate) fn ca() -> PathBuf {
    IDENTITY.1.clone()
}

pub(crate) async fn accept(listener: &TcpListener) -> Option<TlsStream<TcpStream>> {
    let (socket, _) = listener.accept().await.unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(IDENTITY.0.clone()));
    acceptor.accept(socket).await.ok()
}

impl Server {
    /// Allows so many streams on a connection.
    pub(crate) async fn start(streams: u32) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), streams, "")
    }

    /// On a given address; says `name` where it is asked for it.
    pub(crate) fn on(listener: TcpListener, streams: u32, name: &'static str) -> Self {
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (counts, end) = (Arc::<Counts>::default(), broadcast::Sender::new(1));
        let (counted, ends) = (Arc::clone(&counts), end.clone());
        let task = tokio::spawn(async move {
            loop {
                let Some(socket) = accept(&listener).await else { continue };
                tokio::spawn(serve(socket, streams, name, Arc::clone(&counted), ends.subscribe()));
            }
        });
        Self { url, ca: ca(), counts, end, task }
    }

    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn open(&self) -> usize {
        self.counts.open.load(Ordering::SeqCst)
    }

    /// Answers that are still under way.
    pub(crate) fn streams(&self) -> usize {
        self.counts.streams.load(Ordering::SeqCst)
    }

    /// Ends the connections that are there now.
    pub(crate) fn end(&self, how: End) {
        self.end.send(how).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One more as long as it lives.
struct One(Arc<Counts>, fn(&Counts) -> &AtomicUsize);

impl One {
    fn of(counts: &Arc<Counts>, which: fn(&Counts) -> &AtomicUsize) -> Self {
        which(counts).fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counts), which)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.1(&self.0).fetch_sub(1, Ordering::SeqCst);
    }
}

async fn serve(
    socket: TlsStream<TcpStream>,
    streams: u32,
    name: &'static str,
    counts: Arc<Counts>,
    mut end: broadcast::Receiver<End>,
) {
    counts.connections.fetch_add(1, Ordering::SeqCst);
    let _open = One::of(&counts, |counts| &counts.open);
    let service = service_fn(move |request| answer(request, name, Arc::clone(&counts)));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let connection =
        builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(socket), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        how = end.recv() => match how {
            Ok(End::Goodbye) => connection.as_mut().graceful_shutdown(),
            Ok(End::Dead) | Err(_) => return,
        },
    }
    let _ = connection.await;
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(
    request: Request<Incoming>,
    name: &'static str,
    counts: Arc<Counts>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let _ = request.into_body().collect().await;
    Ok(match path.as_str() {
        "/hold" => {
            let one = One::of(&counts, |counts| &counts.streams);
            let first = Bytes::from_static(b"held");
            let pieces = stream::unfold(Some((first, one)), |state| async {
                let (piece, one) = state?;
                if piece.is_empty() {
                    std::future::pending::<()>().await;
                }
                Some((Ok(Frame::data(piece)), Some((Bytes::new(), one))))
            });
            Response::new(StreamBody::new(pieces).boxed_unsync())
        }
        "/head" => {
            let long = "x".repeat(100 << 10);
            let response = Response::builder().header("x-long", long);
            response.body(Full::default().boxed_unsync()).unwrap()
        }
        _ => {
            let kind = (header::CONTENT_TYPE, "text/plain");
            let response = Response::builder().header(kind.0, kind.1);
            response.body(Full::from(name).boxed_unsync()).unwrap()
        }
    })
}
