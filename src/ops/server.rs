//! The HTTP port for operators: liveness, readiness with reasons, and metrics.
//!
//! Nothing here changes anything, and nothing confidential leaves: no configuration, no texts.

use std::net::SocketAddr;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::supervisor::Shutdown;

use super::listener::{BindError, Limits, Listener};
use super::routes::{OpsState, router};

/// Probes and scrapers need a handful; more only cost memory.
const LIMITS: Limits = Limits { connections: 64, connection_age: Duration::from_secs(300) };

/// The bound port, not yet answering.
#[derive(Debug)]
pub struct OpsServer(Listener);

impl OpsServer {
    /// Binds the port; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let listener = Listener::bind(address, "ops.listen").await?;
        tracing::info!(address = %listener.local_addr(), "serving health and metrics");
        Ok(OpsServer(listener))
    }

    /// The address with the port that was really taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    /// Answers until `close` is requested; `draining` makes the process not ready before that.
    pub async fn serve(
        self,
        metrics: Metrics,
        readiness: Readiness,
        draining: Shutdown,
        close: Shutdown,
    ) -> Result<(), BindError> {
        let router = router(OpsState { metrics, readiness, draining });
        self.0.serve(router, None, LIMITS, close).await;
        Ok(())
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
        server: tokio::task::JoinHandle<Result<(), BindError>>,
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
