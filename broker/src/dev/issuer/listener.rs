//! The HTTPS side: discovery, the key set, and ID tokens for the workloads that were configured.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::behaviour::{Behaviour, Connection, Endpoint};
use super::{Shared, lock};

const CONNECTIONS_MAX: usize = 256;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a misbehaving connection is kept open: longer than anybody should wait.
const STALL: Duration = Duration::from_secs(60);

/// Serves until the task is aborted, which ends every connection with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                connections.spawn(serve_one(stream, Arc::clone(&shared)));
            }
            Ok(_) => {}
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve_one(stream: TcpStream, shared: Arc<Shared>) {
    // Without it each answer waits for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    let fault = *lock(&shared.connection);
    match fault {
        Connection::Closed => return,
        Connection::SilentHandshake => return sleep(STALL).await,
        _ => {}
    }
    let Ok(tls) = shared.tls.config(fault, shared.clock.now()) else { return };
    let Ok(Ok(mut tls)) = timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await else { return };
    if fault == Connection::EndlessHeaders {
        let _ = tls.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while tls.write_all(b"x-more: 0\r\n").await.is_ok() && tls.flush().await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
        return;
    }
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    // An error here is a client that went away.
    let _ = http.serve_connection(TokioIo::new(tls), service).await;
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    // A page in a browser can reach loopback by a name of its own, but it cannot choose this header.
    if !is_own_host(&shared, request.headers().get(http::header::HOST)) {
        return Ok(refusal(StatusCode::MISDIRECTED_REQUEST, "expected the issuer's own host"));
    }
    let endpoint = match (request.method(), request.uri().path()) {
        (&Method::GET, "/.well-known/openid-configuration") => Endpoint::Discovery,
        (&Method::GET, "/jwks") => Endpoint::Jwks,
        (&Method::GET, "/mint") => Endpoint::Mint,
        _ => return Ok(refusal(StatusCode::NOT_FOUND, "expected `/jwks`, `/mint` or discovery")),
    };
    shared.count(endpoint);
    let honest = || match endpoint {
        Endpoint::Discovery => cached(&discovery(&shared.url)),
        Endpoint::Jwks => cached(&lock(&shared.keys).jwks()),
        Endpoint::Mint => mint(&shared, request.uri().query().unwrap_or_default()),
    };
    let behaviour = lock(&shared.behaviours).get(&endpoint).cloned().unwrap_or_default();
    Ok(match behaviour {
        Behaviour::Honest => honest(),
        Behaviour::Late(pause) => {
            sleep(pause).await;
            honest()
        }
        Behaviour::Headers(headers) => with_headers(honest(), &headers),
        Behaviour::Guarded(token) => {
            let expected = format!("Bearer {token}");
            match request.headers().get(http::header::AUTHORIZATION) {
                Some(shown) if shown.as_bytes() == expected.as_bytes() => honest(),
                _ => refusal(StatusCode::UNAUTHORIZED, "expected the bearer token"),
            }
        }
        Behaviour::Answer { status, headers, body } => {
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
            with_headers(response, &headers)
        }
        Behaviour::Drip(pause) => Response::new(drip(pause)),
    })
}

fn is_own_host(shared: &Shared, host: Option<&HeaderValue>) -> bool {
    let named = host.and_then(|it| it.to_str().ok()).and_then(|it| it.rsplit_once(':'));
    named.is_some_and(|(name, port)| {
        matches!(name, "127.0.0.1" | "localhost") && port == shared.port.to_string()
    })
}

fn discovery(url: &str) -> Value {
    json!({
        "issuer": url,
        "jwks_uri": format!("{url}/jwks"),
        "id_token_signing_alg_values_supported": ["ES256"],
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
    })
}

fn mint(shared: &Shared, query: &str) -> Response<Body> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let Some((_, identity)) = pairs.find(|(name, _)| name == "identity") else {
        return refusal(StatusCode::BAD_REQUEST, "expected `identity=` and a workload's name");
    };
    let Some(claims) = (shared.workloads)(&identity) else {
        return refusal(StatusCode::NOT_FOUND, "expected the name of a workload that this issuer serves");
    };
    match shared.issue(&shared.header(), claims) {
        Ok(token) => json_response(&json!({ "id_token": token }), "no-store"),
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the token could not be signed"),
    }
}

fn cached(document: &Value) -> Response<Body> {
    json_response(document, "public, max-age=300")
}

fn json_response(document: &Value, cache: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(document.to_string()));
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

fn refusal(status: StatusCode, why: &str) -> Response<Body> {
    let mut response = json_response(&json!({ "error": why }), "no-store");
    *response.status_mut() = status;
    response
}

fn with_headers(mut response: Response<Body>, headers: &[(&'static str, String)]) -> Response<Body> {
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(*name, value);
        }
    }
    response
}

fn drip(pause: Duration) -> Body {
    Body::from_stream(stream::unfold((), move |()| async move {
        sleep(pause).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
    }))
}
