//! Accepting connections within limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::supervisor::Shutdown;

use super::routes::{OpsState, router};

/// Probes and scrapers need a handful; more only cost memory.
const MOST_CONNECTIONS: usize = 64;
/// A peer that sends its header slower than this, or keeps a connection idle for longer, is cut off.
const HEADER_DEADLINE: Duration = Duration::from_secs(15);
/// One connection, however busy, must come back after this: nobody holds a place for ever.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(300);
/// Answers on their way get this long when the server closes.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// A header larger than this is no probe.
const LARGEST_HEADER: usize = 16 << 10;
/// Accepting fails when descriptors run out; trying again at once would only burn a core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    #[error("cannot listen on {address} (ops.listen)")]
    Bind { address: SocketAddr, source: std::io::Error },
}

/// The bound port, not yet answering.
#[derive(Debug)]
pub struct OpsServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl OpsServer {
    /// Binds the port; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, OpsError> {
        let refused = |source| OpsError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        tracing::info!(%address, "serving health and metrics");
        Ok(OpsServer { listener, address })
    }

    /// The address with the port that was really taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `close` is requested; `draining` makes the process not ready before that.
    pub async fn serve(
        self,
        metrics: Metrics,
        readiness: Readiness,
        draining: Shutdown,
        close: Shutdown,
    ) -> Result<(), OpsError> {
        let router = router(OpsState { metrics, readiness, draining });
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
                self.listener.accept().await.map(|(stream, _)| (stream, place))
            };
            let accepted = tokio::select! {
                () = close.requested() => break,
                accepted = accept => accepted,
            };
            // Forget those that have ended.
            while connections.try_join_next().is_some() {}
            match accepted {
                Ok((stream, place)) => {
                    let (router, close) = (router.clone(), close.clone());
                    connections.spawn(async move {
                        serve_connection(stream, router, close).await;
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
        Ok(())
    }
}

async fn serve_connection(stream: TcpStream, router: axum::Router, close: Shutdown) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(LARGEST_HEADER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let deadline = tokio::time::sleep(CONNECTION_DEADLINE);
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    struct Running {
        address: SocketAddr,
        readiness: Readiness,
        draining: Shutdown,
        close: Shutdown,
        server: tokio::task::JoinHandle<Result<(), OpsError>>,
    }

    async fn start() -> Running {
        let server = OpsServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr();
        let metrics = Metrics::new();
        let readiness = Readiness::new(metrics.clone());
        let (draining, close) = (Shutdown::default(), Shutdown::default());
        let server = tokio::spawn(server.serve(metrics, readiness.clone(), draining.clone(), close.clone()));
        Running { address, readiness, draining, close, server }
    }

    async fn get(address: SocketAddr, path: &'static str) -> (u16, ureq::http::HeaderMap, String) {
        tokio::task::spawn_blocking(move || {
            let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
            let mut answer = agent.get(format!("http://{address}{path}")).call().unwrap();
            let body = answer.body_mut().read_to_string().unwrap();
            (answer.status().as_u16(), answer.headers().clone(), body)
        })
        .await
        .unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readiness_names_who_is_not_ready() {
        let running = start().await;
        assert_eq!(get(running.address, "/health/live").await.0, 200);
        assert_eq!(get(running.address, "/health/ready").await.0, 503);
        let role = running.readiness.role("classify");
        role.set_not_ready("broker unreachable");
        let (code, _, body) = get(running.address, "/health/ready").await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(code, 503);
        assert_eq!(
            body,
            serde_json::json!({
                "status": "not_ready",
                "roles": [{"role": "classify", "ready": false, "reason": "broker unreachable"}],
            })
        );
        role.set_ready();
        assert_eq!(get(running.address, "/health/ready").await.0, 200);
        running.draining.request();
        let (code, _, body) = get(running.address, "/health/ready").await;
        assert_eq!((code, body.contains("draining")), (503, true));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn metrics_are_prometheus_text_with_safe_headers() {
        let running = start().await;
        let (code, headers, body) = get(running.address, "/metrics").await;
        assert_eq!(
            (code, headers["content-type"].to_str().unwrap()),
            (200, "text/plain; version=0.0.4; charset=utf-8")
        );
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(body.contains("triaged_build_info{"), "{body}");
        assert_eq!(get(running.address, "/secrets").await.0, 404);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn closing_ends_idle_connections() {
        let running = start().await;
        // A kept-alive connection that has been answered and says nothing more.
        let mut idle = std::net::TcpStream::connect(running.address).unwrap();
        idle.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        idle.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut first = [0; 1];
        idle.read_exact(&mut first).unwrap();
        // And one that never finishes its request.
        let mut slow = std::net::TcpStream::connect(running.address).unwrap();
        slow.write_all(b"GET /health/live HTTP").unwrap();
        running.close.request();
        tokio::time::timeout(Duration::from_secs(30), running.server).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let running = start().await;
        let error = OpsServer::bind(running.address).await.unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {} (ops.listen)", running.address));
    }
}
