//! The listener for those who run the broker: metrics, health and readiness, on loopback alone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How often counts are condensed; between two, each one takes memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// How long a caller may hold up the shutdown.
const DRAIN: Duration = Duration::from_secs(1);

/// A part that keeps the broker from issuing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotReady {
    /// Which part: `log`, `store`, `keys`, `bundle`, `clock`, `halt`.
    pub part: &'static str,
    /// What is wrong and what to do.
    pub detail: String,
}

/// What keeps the broker from recording and signing right now; empty when nothing does. Asked on each request, so
/// it must only look at what is in memory.
pub type Readiness = Arc<dyn Fn() -> Vec<NotReady> + Send + Sync>;

/// Why the listener was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// Others than this machine could reach it.
    #[error(
        "`{0}` is not a loopback address; use 127.0.0.1 or [::1], for metrics and health are open to all who reach them"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// Which address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Opens the listener.
///
/// # Errors
/// When `addr` is not loopback, or is taken.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, OpsError> {
    if !addr.ip().to_canonical().is_loopback() {
        return Err(OpsError::NotLoopback(addr));
    }
    TcpListener::bind(addr).await.map_err(|source| OpsError::Bind { addr, source })
}

/// Serves `/metrics`, `/healthz` and `/readyz` in plain HTTP until `shutdown`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let served = axum::serve(listener, router(metrics.clone(), readiness))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let drained = async {
        condense(metrics, &shutdown).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = async { served.await } => served,
        () = drained => Ok(()),
    }
}

/// Until `shutdown`.
async fn condense(metrics: PrometheusHandle, shutdown: &CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(UPKEEP_EVERY)).await.is_some() {
        metrics.run_upkeep();
    }
}

fn router(metrics: PrometheusHandle, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(rendered).with_state(metrics))
        .route("/healthz", get(|| async { Json(serde_json::json!({ "alive": true })) }))
        .route("/readyz", get(ready).with_state(readiness))
        .layer(middleware::from_fn(from_this_machine))
}

async fn rendered(State(metrics): State<PrometheusHandle>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let reasons = readiness();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

/// A page in a browser on this machine may not read these through a name that it made to point here.
async fn from_this_machine(request: Request, next: Next) -> Response {
    if names_loopback(request.headers()) {
        next.run(request).await
    } else {
        StatusCode::MISDIRECTED_REQUEST.into_response()
    }
}

fn names_loopback(headers: &HeaderMap) -> bool {
    let authority =
        headers.get(header::HOST).and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok());
    authority.is_some_and(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;

    use super::*;

    async fn answer(path: &str, host: &str, reasons: &[NotReady]) -> (StatusCode, String) {
        let reasons = reasons.to_vec();
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || metrics::counter!("seen_total").increment(3));
        let router = router(recorder.handle(), Arc::new(move || reasons.clone()));
        let request = Request::builder().uri(path).header("host", host).body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn only_loopback_can_be_bound() {
        for bad in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
            let refusal = bind(bad.parse().unwrap()).await.unwrap_err();
            assert!(matches!(refusal, OpsError::NotLoopback(_)), "{bad}");
        }
        assert!(bind("127.0.0.1:0".parse().unwrap()).await.unwrap().local_addr().unwrap().ip().is_loopback());
    }

    #[tokio::test]
    async fn a_caller_that_never_finishes_does_not_hold_up_the_shutdown() {
        use tokio::io::AsyncWriteExt;

        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut caller = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(listener, metrics, Arc::new(Vec::new), shutdown.clone()));
        caller.write_all(b"GET /healthz HTTP/1.1\r\nhost: loc").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        shutdown.cancel();
        tokio::time::timeout(DRAIN * 3, served).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn readiness_says_what_is_missing() {
        let (status, body) = answer("/readyz", "127.0.0.1:9", &[]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let full = NotReady { part: "log", detail: "the disk is full".into() };
        let (status, body) = answer("/readyz", "127.0.0.1:9", &[full]).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let reasons = serde_json::json!([{ "part": "log", "detail": "the disk is full" }]);
        assert_eq!(body, serde_json::json!({ "ready": false, "reasons": reasons }));
    }

    #[tokio::test]
    async fn metrics_are_read_under_a_name_of_this_machine_only() {
        for host in ["127.0.0.1:9", "localhost:9", "[::1]:9", "127.0.0.1"] {
            let (status, body) = answer("/metrics", host, &[]).await;
            assert_eq!(status, StatusCode::OK, "{host}");
            assert!(body.contains("seen_total 3"), "{body}");
        }
        for host in ["rebound.example.org:9", "localhost.example.org", "192.0.2.1:9", "", "@"] {
            assert_eq!(answer("/metrics", host, &[]).await.0, StatusCode::MISDIRECTED_REQUEST, "{host}");
        }
    }
}
