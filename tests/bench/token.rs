//! Tokens over HTTP beside tokens over gRPC, in one run: the same broker, the same proofs, the same line.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use daypass_broker::dev::caller::client_config;
use daypass_broker::dev::workload_ca::WorkloadCertificate;
use daypass_proto::v1 as pb;
use daypass_tests::harness::{EXCHANGE, ID_TOKEN, encoded};
use hdrhistogram::Histogram;
use http::Response;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Fault;
use crate::broker::Deployment;
use crate::case::{CASES, Case, rs256_token};
use crate::client::Connection;
use crate::load::{Call, WARM_UP};

/// How many requests one connection of HTTP/2 carries at once.
const STREAMS: usize = 32;

/// What is compared.
const WIRES: [&str; 3] = ["grpc", "http2", "http1"];

/// One wire with so many in flight.
#[derive(Serialize)]
struct Row {
    case: &'static str,
    wire: &'static str,
    in_flight: usize,
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
}

pub(crate) async fn run(json: bool, load: Duration, sizes: &[usize]) -> Result<(), Fault> {
    let mut deployment = Deployment::start().await?;
    if !json {
        println!("case       wire   in flight     per s    p50 ms    p99 ms    CPU us");
    }
    for case in CASES.iter().filter(|case| case.name.starts_with("jwt-")) {
        for in_flight in sizes {
            for wire in WIRES {
                let row = measured(case, wire, *in_flight, load, &deployment).await?;
                if json { println!("{}", serde_json::to_string(&row)?) } else { row.print() }
            }
        }
    }
    deployment.broker.stop().await
}

async fn measured(
    case: &Case,
    wire: &'static str,
    in_flight: usize,
    load: Duration,
    deployment: &Deployment,
) -> Result<Row, Fault> {
    let callers = callers(case, wire, in_flight, deployment).await?;
    let starts = Instant::now() + WARM_UP;
    let window = starts..starts + load;
    let asking: Vec<_> = callers.into_iter().map(|it| tokio::spawn(it.ask(window.clone()))).collect();
    tokio::time::sleep_until(window.start.into()).await;
    let before = deployment.broker.process.used()?;
    tokio::time::sleep_until(window.end.into()).await;
    let after = deployment.broker.process.used()?;
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    for caller in asking {
        caller.await??.into_iter().for_each(|micros| latencies.saturating_record(micros));
    }
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Row {
        case: case.name,
        wire,
        in_flight,
        per_s: latencies.len() as f64 / load.as_secs_f64(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        cpu_us: (after.cpu_us - before.cpu_us) / latencies.len() as f64,
    })
}

/// So many callers: over HTTP/2 they share connections, over HTTP/1.1 each keeps its own alive.
async fn callers(
    case: &Case,
    wire: &str,
    in_flight: usize,
    deployment: &Deployment,
) -> Result<Vec<Caller>, Fault> {
    let certificate = case.certificate(deployment)?;
    let each = if wire == "http1" { 1 } else { STREAMS };
    let mut callers = Vec::new();
    while callers.len() < in_flight {
        let caller = opened(case, wire, deployment, &certificate).await?;
        let more = each.min(in_flight - callers.len()) - 1;
        for _ in 0..more {
            callers.extend(caller.shared());
        }
        callers.push(caller);
    }
    Ok(callers)
}

async fn opened(
    case: &Case,
    wire: &str,
    deployment: &Deployment,
    certificate: &WorkloadCertificate,
) -> Result<Caller, Fault> {
    let mut tls = client_config(&deployment.ca, Some(certificate))?;
    if wire == "grpc" {
        let connection = Connection::open(deployment.broker.api, Arc::new(tls)).await?;
        return Ok(Caller::Grpc(connection, case.call(deployment)?));
    }
    if wire == "http1" {
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    }
    let stream = TcpStream::connect(deployment.broker.web).await?;
    stream.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::new(tls));
    let stream = TokioIo::new(connector.connect(ServerName::try_from("localhost")?, stream).await?);
    let form = Form { host: deployment.broker.web.to_string(), content: form(case, deployment)? };
    if wire == "http1" {
        let (sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        return Ok(Caller::Http1(sender, form));
    }
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
    tokio::spawn(connection);
    Ok(Caller::Http2(sender, form))
}

fn form(case: &Case, deployment: &Deployment) -> Result<Bytes, Fault> {
    let scope = ("scope", "task:post-invoices");
    if case.name == "jwt-mtls" {
        return Ok(encoded(&[("grant_type", "client_credentials"), scope]).into());
    }
    let token = rs256_token(deployment)?;
    let proof = [("subject_token", token.as_str()), ("subject_token_type", ID_TOKEN)];
    Ok(encoded(&[&[("grant_type", EXCHANGE), scope][..], &proof].concat()).into())
}

/// A form that is posted again and again.
#[derive(Clone)]
struct Form {
    host: String,
    content: Bytes,
}

impl Form {
    fn request(&self, authority: &str) -> Result<http::Request<Full<Bytes>>, Fault> {
        let request = http::Request::post(format!("{authority}/token"))
            .header("content-type", "application/x-www-form-urlencoded");
        let request = if authority.is_empty() { request.header("host", &self.host) } else { request };
        Ok(request.body(Full::new(self.content.clone()))?)
    }
}

/// Who asks, over its wire.
enum Caller {
    Grpc(Connection, Call),
    Http1(http1::SendRequest<Full<Bytes>>, Form),
    Http2(http2::SendRequest<Full<Bytes>>, Form),
}

impl Caller {
    /// Another one on the same connection, where connections are shared.
    fn shared(&self) -> Option<Self> {
        match self {
            Self::Grpc(connection, call) => Some(Self::Grpc(connection.clone(), call.clone())),
            Self::Http2(sender, form) => Some(Self::Http2(sender.clone(), form.clone())),
            Self::Http1(..) => None,
        }
    }

    /// Asks one time after the other; the microseconds of what begins and ends within `measured`.
    async fn ask(mut self, measured: Range<Instant>) -> Result<Vec<u64>, Fault> {
        let mut micros = Vec::new();
        while Instant::now() < measured.end {
            let began = Instant::now();
            self.once().await?;
            let ended = Instant::now();
            if measured.start <= began && ended <= measured.end {
                micros.push(u64::try_from((ended - began).as_micros())?);
            }
        }
        Ok(micros)
    }

    async fn once(&mut self) -> Result<(), Fault> {
        match self {
            Self::Grpc(connection, call) => {
                let path = "/daypass.v1.CredentialService/Issue";
                let answer: pb::IssueResponse =
                    connection.call(path, &call.message, call.bearer.as_deref()).await?;
                answer.credential.map(drop).ok_or("an answer without a credential".into())
            }
            Self::Http1(sender, form) => {
                sender.ready().await?;
                token(sender.send_request(form.request("")?).await?).await
            }
            Self::Http2(sender, form) => {
                sender.ready().await?;
                let request = form.request(&format!("https://{}", form.host))?;
                token(sender.send_request(request).await?).await
            }
        }
    }
}

async fn token(response: Response<Incoming>) -> Result<(), Fault> {
    let status = response.status();
    let content = response.into_body().collect().await?.to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&content)?;
    match answer.get("access_token").and_then(serde_json::Value::as_str) {
        Some(_) => Ok(()),
        None => Err(format!("the broker answered {status}: {answer}").into()),
    }
}

impl Row {
    fn print(&self) {
        println!(
            "{:<10} {:<6} {:>9} {:>9.0} {:>9.2} {:>9.2} {:>9.1}",
            self.case, self.wire, self.in_flight, self.per_s, self.p50_ms, self.p99_ms, self.cpu_us
        );
    }
}
