//! Accepting connections within limits, for every HTTP server of the process, with and without TLS.
//!
//! Nobody holds a place for ever: a peer that is slow with its handshake, its header or with taking its answer is cut
//! off, and so is every connection at some age. Peers beyond the limit wait in the kernel's backlog.

mod patience;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::supervisor::Shutdown;

use patience::Patient;

/// A peer that shakes hands or sends its header slower than this, or keeps a connection idle for longer, is cut off.
const HEADER_DEADLINE: Duration = Duration::from_secs(15);
/// A peer that takes nothing of its answer for this long is cut off.
const STALL_DEADLINE: Duration = Duration::from_secs(30);
/// Answers on their way get this long when the server closes.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// A larger header is not one of a caller's making.
const LARGEST_HEADER: usize = 16 << 10;
/// Accepting fails when descriptors run out; trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({setting})")]
pub struct BindError {
    address: SocketAddr,
    setting: &'static str,
    source: std::io::Error,
}

/// What a server allows its peers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time; each costs a descriptor and some buffers.
    pub(super) connections: usize,
    /// One connection, however busy, must come back after this.
    pub(super) connection_age: Duration,
}

/// Who is at the other end; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The bound port, not yet answering.
#[derive(Debug)]
pub(super) struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds the port that `setting` names; port 0 takes a free one.
    pub(super) async fn bind(address: SocketAddr, setting: &'static str) -> Result<Self, BindError> {
        let refused = |source| BindError { address, setting, source };
        let tcp = TcpListener::bind(address).await.map_err(refused)?;
        let address = tcp.local_addr().map_err(refused)?;
        Ok(Listener { tcp, address })
    }

    /// The address with the port that was really taken.
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `close` is requested, then lets the answers on their way go out.
    pub(super) async fn serve(self, router: Router, tls: Option<TlsAcceptor>, limits: Limits, close: Shutdown) {
        let places = Arc::new(Semaphore::new(limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
                self.tcp.accept().await.map(|(stream, peer)| (stream, peer, place))
            };
            let accepted = tokio::select! {
                () = close.requested() => break,
                accepted = accept => accepted,
            };
            // Forget those that have ended.
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer, place)) => {
                    let connection = Connection { peer, router: router.clone(), limits, close: close.clone() };
                    let tls = tls.clone();
                    connections.spawn(async move {
                        connection.open(stream, tls).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        let finish = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_DEADLINE, finish).await.is_err() {
            tracing::debug!("cutting connections that did not end");
        }
    }
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    close: Shutdown,
}

impl Connection {
    async fn open(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are written whole; waiting for more to send only costs time.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "connection ended");
            return;
        }
        let Some(tls) = tls else { return self.serve(stream).await };
        match tokio::time::timeout(HEADER_DEADLINE, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(peer = %self.peer, %error, "no TLS connection"),
            Err(_) => tracing::debug!(peer = %self.peer, "the TLS handshake took too long"),
        }
    }

    async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Connection { peer, router, limits, close } = self;
        let router = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_DEADLINE)
            .max_buf_size(LARGEST_HEADER)
            .serve_connection(TokioIo::new(Patient::new(stream, STALL_DEADLINE)), service);
        tokio::pin!(connection);
        let deadline = tokio::time::sleep(limits.connection_age);
        tokio::pin!(deadline);
        let mut closing = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection ended");
                    }
                    return;
                }
                () = close.requested(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = &mut deadline => return,
            }
        }
    }
}
