//! The story, told as it happens: two proofs, two credentials, a refusal, an ending, and the whole log verified. The
//! callers in it are real ones, over TLS.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_evidence::entry::{Body, CredentialIssued, Entry};
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_proto::v1::issue_response::Credential as Answered;
use daypass_verify::certificate::TrustAnchors;
use daypass_verify::credential::verify_certificate;
use daypass_verify::ids::{CredentialId, SpiffeId};
use daypass_verify::time::Seconds;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tonic::Status;
use tonic_types::StatusExt as _;

use super::DevError;
use super::caller::{Caller, possession};
use super::organisation::Organisation;
use super::profiles::{CI, NIGHTLY, OPERATOR, STAFF};
use super::state::{State, trust_domain};
use super::teller::{banner, countdown, countdown_over, fact, members, step};
use super::workload_ca::WorkloadCertificate;
use crate::log::verify_store;
use crate::serve::Running;

/// The leeway that a sweep waits out, and a little for the sweep itself.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// How long the credential lives whose end the story waits for.
const SHORT_LIFE_S: i64 = 5;

struct Stage<'a> {
    state: &'a State,
    organisation: &'a Organisation,
    broker: &'a Running,
}

pub(super) async fn tell(
    state: &State,
    organisation: &Organisation,
    broker: &Running,
) -> Result<(), DevError> {
    let stage = Stage { state, organisation, broker };
    banner(state, broker);
    stage.issuer_is_reachable().await;

    step(1, "A job of the CI system shows an ID token, and gets a token for one task");
    stage.token_for_token().await?;

    step(2, "A service shows its client certificate (mTLS), and gets a certificate for one database role");
    let nightly = stage.nightly().await?;
    stage.certificate_for_certificate(&nightly).await?;

    step(3, "The same service asks for a task that is not its own, and is refused");
    stage.refusal(&nightly).await?;

    step(4, "A credential of five seconds ends, and its end is an entry");
    stage.ending(&nightly).await?;

    step(5, "Anyone can verify the whole log, offline");
    stage.verification().await
}

impl Stage<'_> {
    /// The broker fetches the issuers' keys as it starts; the first proof should not come before them.
    async fn issuer_is_reachable(&self) {
        for _ in 0..50 {
            let name = CI.parse().map(|name| self.broker.trust.known().keys(&name));
            if !matches!(name, Ok(daypass_core::proof::IssuerKeys::Unavailable)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn connect(&self, certificate: Option<&WorkloadCertificate>) -> Result<Caller, DevError> {
        Caller::connect(self.broker.api.port(), &self.state.listener.ca, certificate).await
    }

    async fn nightly(&self) -> Result<Caller, DevError> {
        let id: SpiffeId = format!("spiffe://example.org/{NIGHTLY}").parse().map_err(failed)?;
        let certificate =
            self.organisation.workloads.issue(&id, self.broker.desk.clock.now(), Seconds::new(3600))?;
        fact("proof", &format!("client certificate\nURI: {id}\nissuer: the organisation's workload CA"));
        self.connect(Some(&certificate)).await
    }

    async fn operator(&self) -> Result<Caller, DevError> {
        Ok(self.connect(None).await?.with_token(self.organisation.token(STAFF, OPERATOR)?))
    }

    async fn token_for_token(&self) -> Result<(), DevError> {
        let token = self.organisation.token(CI, NIGHTLY)?;
        fact("proof", &format!("ID token\n{}", claims(&token)));
        let caller = self.connect(Some(&possession()?)).await?.with_token(token);
        let request =
            pb::IssueRequest { task: "post-invoices".into(), run: "JOB-88123".into(), ..Default::default() };
        let response = self.issue(&caller, request).await?;
        self.explain(&response).await?;
        if let Some(Answered::Token(token)) = &response.credential {
            fact("credential", &format!("access token, signature not shown\n{}", claims(&token.value)));
        }
        Ok(())
    }

    async fn certificate_for_certificate(&self, nightly: &Caller) -> Result<(), DevError> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let wanted = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
        let request = pb::IssueRequest {
            task: "ledger-db".into(),
            credential: Some(Wanted::Certificate(wanted)),
            ..Default::default()
        };
        let response = self.issue(nightly, request).await?;
        self.explain(&response).await?;
        if let Some(Answered::Certificate(certificate)) = &response.credential {
            fact("credential", &self.describe(certificate)?);
        }
        Ok(())
    }

    fn describe(&self, certificate: &pb::Certificate) -> Result<String, DevError> {
        let roots = std::fs::read(self.state.path("root.pem")).map_err(failed)?;
        let root = pem::parse(roots).map_err(failed)?.into_contents();
        let anchors = TrustAnchors::new(vec![CertificateDer::from(root)]).map_err(failed)?;
        let chain: Vec<CertificateDer<'_>> =
            certificate.chain.iter().map(|der| CertificateDer::from(der.as_ref())).collect();
        let verified =
            verify_certificate(&chain, &anchors, None, &trust_domain()?, self.broker.desk.clock.now());
        let verified = verified.map_err(failed)?;
        Ok(format!(
            "X.509 certificate, verified against the root\nsubject: {}\ntask: {}\nserial: {}\nvalid until: {}",
            verified.subject, verified.task.identifier, verified.credential_id, verified.expires_at
        ))
    }

    async fn issue(&self, caller: &Caller, request: pb::IssueRequest) -> Result<pb::IssueResponse, DevError> {
        let request = caller.request(request).map_err(failed_call)?;
        Ok(caller.credentials().issue(request).await.map_err(failed_call)?.into_inner())
    }

    /// Shows what the log says of a credential: asked for by an operator, as anybody else would.
    async fn explain(&self, response: &pb::IssueResponse) -> Result<(), DevError> {
        let receipt = response.receipt.clone().unwrap_or_default();
        let index = receipt.entry.map(|entry| entry.index).unwrap_or_default();
        let issued = self.issuance(&response.credential_id).await?;
        let rules: Vec<&str> = issued.decision.rules.iter().map(String::as_str).collect();
        fact("decision", &format!("permitted for {} by {}", issued.identity.name, rules.join(", ")));
        let (scope, ttl) = (&issued.granted.scope, issued.granted.ttl_s);
        let granted = match list(scope.audiences.iter()) {
            at if at.is_empty() => format!("target {} for {ttl}", issued.target.name),
            at => format!("{} for {ttl} on {at}", list(scope.actions.iter())),
        };
        fact("granted", &granted);
        fact(
            "record",
            &format!(
                "entry {index}, durable before the signature; proven by {} hashes",
                receipt.inclusion.len()
            ),
        );
        Ok(())
    }

    async fn issuance(&self, credential: &str) -> Result<CredentialIssued, DevError> {
        for entry in self.entries(credential).await? {
            if let Body::CredentialIssued(issued) = entry.body {
                return Ok(*issued);
            }
        }
        Err(DevError::Story(format!("the log has no entry of credential {credential}")))
    }

    async fn entries(&self, credential: &str) -> Result<Vec<Entry>, DevError> {
        let operator = self.operator().await?;
        let wanted = pb::ListEntriesRequest { credential_id: credential.into(), ..Default::default() };
        let request = operator.request(wanted).map_err(failed_call)?;
        let mut listed = operator.evidence().list_entries(request).await.map_err(failed_call)?.into_inner();
        let mut entries = Vec::new();
        while let Some(response) = listed.message().await.map_err(failed_call)? {
            entries.push(Entry::read(&response.entry).map_err(failed)?);
        }
        Ok(entries)
    }

    async fn refusal(&self, nightly: &Caller) -> Result<(), DevError> {
        let request = pb::IssueRequest { task: "deploy-web".into(), ..Default::default() };
        let request = nightly.request(request).map_err(failed_call)?;
        let Err(status) = nightly.credentials().issue(request).await else {
            return Err(DevError::Story("`deploy-web` should have been refused".into()));
        };
        let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
        let request_id = status.get_details_request_info().map(|info| info.request_id).unwrap_or_default();
        fact("told", &format!("{reason}: {}\nrequest {request_id}", status.message()));
        let operator = self.operator().await?;
        let request = operator.request(pb::ExplainRequest { request_id }).map_err(failed_call)?;
        let explained = operator.evidence().explain(request).await.map_err(failed_call)?.into_inner();
        fact(
            "explained",
            &format!("to an operator, from {}: {}: {}", explained.source, explained.reason, explained.clause),
        );
        Ok(())
    }

    async fn ending(&self, nightly: &Caller) -> Result<(), DevError> {
        let ttl = prost_types::Duration { seconds: SHORT_LIFE_S, nanos: 0 };
        let request = pb::IssueRequest { task: "post-invoices".into(), ttl: Some(ttl), ..Default::default() };
        let response = self.issue(nightly, request).await?;
        let index =
            response.receipt.and_then(|receipt| receipt.entry).map(|entry| entry.index).unwrap_or_default();
        fact(
            "record",
            &format!("entry {index}: credential {}, alive for {SHORT_LIFE_S} s", response.credential_id),
        );
        let id: CredentialId = response.credential_id.parse().map_err(failed)?;
        for second in 0..ENDS_WITHIN.as_secs() {
            let ended = self.entries(&id.to_string()).await?.into_iter().find_map(|entry| match entry.body {
                Body::CredentialEnded(ended) => Some((entry.envelope.time, ended)),
                _ => None,
            });
            if let Some((time, ended)) = ended {
                countdown_over();
                fact("ended", &format!("{:?} at {time}: the log names entry {index} as ended", ended.how));
                return Ok(());
            }
            countdown(
                36_u64.saturating_sub(second),
                "the leeway of receivers ends, and then its entry is written",
            );
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(DevError::Story("the credential did not end in time".into()))
    }

    async fn verification(&self) -> Result<(), DevError> {
        let key = self.broker.log().key().clone();
        let verified = self.broker.readers.run(move |reader| Ok(verify_store(reader, &key, None))).await?;
        let report = verified.map_err(failed)?.report;
        fact(
            "verified",
            &format!(
                "{} entries, every leaf, the signed checkpoint, and what the entries say of each other: no finding",
                report.size
            ),
        );
        fact(
            "credentials",
            &format!(
                "{} issued, {} expired, {} void, {} still alive",
                report.issued, report.ended_expired, report.void, report.live
            ),
        );
        Ok(())
    }
}

/// The claims of a token; never its signature.
fn claims(token: &str) -> String {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let value: Option<Value> = payload.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    value.as_ref().map(members).unwrap_or_default()
}

fn list<T: ToString>(items: impl Iterator<Item = T>) -> String {
    let texts: Vec<String> = items.map(|item| item.to_string()).collect();
    texts.join(", ")
}

fn failed(error: impl std::fmt::Display) -> DevError {
    DevError::Story(error.to_string())
}

fn failed_call(status: Status) -> DevError {
    DevError::Story(format!("the broker answered {}: {}", status.code(), status.message()))
}
