//! What is measured: three kinds of issuance, each with more and more in flight.

use std::sync::Arc;
use std::time::{Duration, Instant};

use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_broker::dev::caller::client_config;
use daypass_broker::dev::workload_ca::WorkloadCertificate;
use daypass_proto::v1 as pb;
use daypass_verify::time::Seconds;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Map, json};

use crate::Fault;
use crate::broker::{Deployment, NIGHTLY};
use crate::client::{Connection, framed};
use crate::load::{Call, Load, WARM_UP};
use crate::raw::Raw;
use crate::table::Row;

/// How many requests one connection carries at once: half of what the broker allows.
const STREAMS: usize = 32;

/// One kind of issuance.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    proof: Shown,
    wants: Wants,
}

#[derive(Clone, Copy)]
enum Shown {
    Certificate,
    Rs256Token,
}

#[derive(Clone, Copy, PartialEq)]
enum Wants {
    Token,
    Certificate,
}

pub(crate) const CASES: [Case; 3] = [
    Case { name: "jwt-mtls", proof: Shown::Certificate, wants: Wants::Token },
    Case { name: "jwt-oidc", proof: Shown::Rs256Token, wants: Wants::Token },
    Case { name: "x509-csr", proof: Shown::Certificate, wants: Wants::Certificate },
];

pub(crate) async fn run(
    case: &Case,
    in_flight: usize,
    load: Duration,
    deployment: &Deployment,
    raw: &Raw,
) -> Result<Row, Fault> {
    let call = case.call(deployment)?;
    let certificate = case.certificate(deployment)?;
    let tls = Arc::new(client_config(&deployment.ca, Some(&certificate))?);
    let mut connections = Vec::new();
    for _ in 0..in_flight.div_ceil(STREAMS) {
        connections.push(Connection::open(deployment.broker.api, Arc::clone(&tls)).await?);
    }
    let starts = Instant::now() + WARM_UP;
    let loading = Load::start(&connections, in_flight, &call, starts..starts + load);
    tokio::time::sleep_until(starts.into()).await;
    let (before, commits_before) = (deployment.broker.process.used()?, deployment.broker.commits().await?);
    tokio::time::sleep_until((starts + load).into()).await;
    let (after, commits_after) = (deployment.broker.process.used()?, deployment.broker.commits().await?);
    let loaded = loading.end().await?.without_refusal()?;
    let count = loaded.latencies.len() as f64;
    let per_s = count / load.as_secs_f64();
    let syncs = (commits_after - commits_before) / count;
    let ceiling_per_s = raw.ceiling(case.name, syncs);
    Ok(Row {
        case: case.name,
        in_flight,
        per_s,
        p50_ms: loaded.ms(0.5),
        p99_ms: loaded.ms(0.99),
        cpu_us: (after.cpu_us - before.cpu_us) / count,
        syncs,
        bytes: (after.written - before.written) / count,
        ceiling_per_s,
        share: per_s / ceiling_per_s,
    })
}

impl Case {
    pub(crate) fn call(&self, deployment: &Deployment) -> Result<Call, Fault> {
        let bearer = match self.proof {
            Shown::Certificate => None,
            Shown::Rs256Token => Some(format!("Bearer {}", rs256_token(deployment)?).into()),
        };
        Ok(Call { message: framed(&self.request()?), bearer })
    }

    pub(crate) fn request(&self) -> Result<pb::IssueRequest, Fault> {
        let mut request = pb::IssueRequest { task: "post-invoices".into(), ..Default::default() };
        if self.wants == Wants::Certificate {
            let csr = CertificateParams::default().serialize_request(&KeyPair::generate()?)?.der().to_vec();
            request.task = "ledger-db".into();
            request.credential =
                Some(pb::issue_request::Credential::Certificate(pb::CertificateParameters {
                    csr: csr.into(),
                    ..Default::default()
                }));
        }
        Ok(request)
    }

    /// With a token the caller shows a fresh self-signed certificate, which binds what it gets.
    pub(crate) fn certificate(&self, deployment: &Deployment) -> Result<WorkloadCertificate, Fault> {
        match self.proof {
            Shown::Certificate => workload(deployment),
            Shown::Rs256Token => {
                let key = KeyPair::generate()?;
                let certificate = CertificateParams::new(Vec::<String>::new())?.self_signed(&key)?;
                let key = PrivatePkcs8KeyDer::from(key.serialize_der());
                Ok(WorkloadCertificate { chain: vec![certificate.der().clone()], key })
            }
        }
    }
}

pub(crate) fn workload(deployment: &Deployment) -> Result<WorkloadCertificate, Fault> {
    let id = format!("spiffe://example.org/{NIGHTLY}").parse()?;
    Ok(deployment.organisation.workloads.issue(&id, SystemClock.now(), Seconds::new(7200))?)
}

pub(crate) fn rs256_token(deployment: &Deployment) -> Result<String, Fault> {
    let now = SystemClock.now().seconds();
    let claims = json!({ "sub": "nightly", "aud": deployment.audience, "pod_uid": "bench", "iat": now, "exp": now + 7200 });
    let claims: Map<String, serde_json::Value> = claims.as_object().cloned().unwrap_or_default();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
    header.kid = Some(deployment.rs256.kid(jsonwebtoken::Algorithm::RS256)?);
    Ok(deployment.rs256.issue_under(&header, claims)?)
}
