//! The straight line of an issuance: ask, verify, remember the log, hand out.

use std::sync::Arc;

use daypass_proto::v1;
use daypass_proto::v1::credential_service_client::CredentialServiceClient;
use daypass_proto::v1::issue_response;
use daypass_verify::certificate::CertificateError;
use daypass_verify::credential::CredentialError;
use daypass_verify::csr::key_of_csr;
use daypass_verify::ids::{CredentialId, Digest};
use daypass_verify::jose::JoseError;
use rustls_pki_types::CertificateDer;
use secrecy::SecretString;

use crate::client::Client;
use crate::credential::{Credential, Grant, Preview, Receipt, Secret};
use crate::error::Error;
use crate::kept::Newest;
use crate::line::Line;
use crate::published::Published;
use crate::request::{IssueRequest, Kind};
use crate::verify::{self, VerifyError};

impl Client {
    /// Asks for one credential, and verifies it.
    ///
    /// # Errors
    /// When it was refused, nobody answered, or the answer does not hold: see [`Error`].
    pub async fn issue(&self, request: IssueRequest) -> Result<Credential, Error> {
        // Whatever is needed to check the answer is fetched first: a proof that counts once is not spent in vain.
        let (log_key, _) = (self.log_key().await?, self.published().await?);
        let key = IssueKey::of(&request.kind)?;
        let known = match self.known(log_key)? {
            Some(known) => Some(known),
            None => self.checkpoint().await.and_then(|_| self.known(log_key))?,
        };
        let mut wire = request.to_wire(key.csr.clone());
        wire.request_id = uuid::Uuid::now_v7().to_string();
        wire.known_checkpoint = known.as_ref().map(|it| it.note.clone()).unwrap_or_default();
        let line = self.line();
        let (answer, request_id) = self.send_issue(&line, wire).await?;
        let granted = verify::granted(&request, &answer)?;
        verify::trust_domain(&granted, log_key)?;
        let id = answer.credential_id.parse().map_err(|_| VerifyError::Answer("credential_id"))?;
        let receipt = answer.receipt.as_ref().ok_or(VerifyError::Answer("receipt"))?;
        let receipt = verify::receipt(receipt, log_key)?;
        self.follow(known, &receipt).await?;
        let renew_after = verify::moment(answer.renew_after.as_ref(), "renew_after")?;
        let wire = answer.credential.ok_or(VerifyError::Answer("credential"))?;
        let secret = self.verified_secret(wire, (id, line.holder.digest()), &granted, &request, key).await?;
        Ok(Credential { id, secret, granted, narrowed: answer.narrowed, renew_after, receipt, request_id })
    }

    /// Asks what `request` would get; nothing is issued and no proof is spent.
    ///
    /// # Errors
    /// When it would be refused, nobody answered, or the answer does not hold.
    pub async fn preview(&self, request: &IssueRequest) -> Result<Preview, Error> {
        let key = IssueKey::of(&request.kind)?;
        let wire = v1::IssueRequest { validate_only: true, ..request.to_wire(key.csr) };
        let (answer, request_id) = self.send_issue(&self.line(), wire).await?;
        let granted = verify::granted(request, &answer)?;
        Ok(Preview { granted, narrowed: answer.narrowed, request_id })
    }

    /// Ends a credential before its time.
    ///
    /// # Errors
    /// When it was refused or nobody answered.
    pub async fn revoke(
        &self,
        id: CredentialId,
        reason: v1::RevocationReason,
        comment: &str,
    ) -> Result<u64, Error> {
        let selector = v1::Selector {
            what: Some(v1::selector::What::CredentialId(id.to_string())),
            ..v1::Selector::default()
        };
        let request = v1::RevokeRequest {
            selector: Some(selector),
            reason: reason.into(),
            comment: comment.to_owned(),
            ..v1::RevokeRequest::default()
        };
        let mut service = CredentialServiceClient::new(self.channel());
        let answer = service.revoke(self.proven(request).await?).await;
        Ok(self.sorted(answer)?.into_inner().count)
    }

    async fn send_issue(
        &self,
        line: &Line,
        wire: v1::IssueRequest,
    ) -> Result<(v1::IssueResponse, Option<String>), Error> {
        let mut service = CredentialServiceClient::new(line.channel.clone());
        let answer = service.issue(self.proven(wire).await?).await;
        let answer = self.sorted(answer)?;
        let id =
            answer.metadata().get("daypass-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        Ok((answer.into_inner(), id))
    }

    /// Checks that the log of `receipt` begins with all that was known, and knows it from now on.
    async fn follow(&self, known: Option<Newest>, receipt: &Receipt) -> Result<(), Error> {
        let found = Newest { note: receipt.note.clone().into(), checkpoint: receipt.checkpoint.clone() };
        self.follow_checkpoint(known, found).await
    }

    async fn verified_secret(
        &self,
        wire: issue_response::Credential,
        (id, holder): (CredentialId, Digest),
        granted: &Grant,
        request: &IssueRequest,
        key: IssueKey,
    ) -> Result<Secret, Error> {
        match wire {
            issue_response::Credential::Token(token) => {
                let check = |it: &Published| {
                    verify::token(&token.value, id, granted, request, holder, it, self.now())
                };
                let (bound, _) = self.under_published(check).await?;
                Ok(Secret::Token { value: token.value.into(), kind: token.r#type, bound })
            }
            issue_response::Credential::Certificate(certificate) => {
                let chain: Vec<_> =
                    certificate.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
                let spki = key.spki.ok_or(VerifyError::Answer("token"))?;
                let node = request.kind.is_node();
                let check =
                    |it: &Published| verify::certificate(&chain, (id, node), granted, spki, it, self.now());
                let ((), published) = self.under_published(check).await?;
                Ok(Secret::Certificate { chain, roots: published.roots.clone(), key: key.pem })
            }
        }
    }

    /// Checks under what is published; what it does not know yet may be there by now.
    async fn under_published<T>(
        &self,
        check: impl Fn(&Published) -> Result<T, VerifyError>,
    ) -> Result<(T, Arc<Published>), Error> {
        let published = self.published().await?;
        match check(&published) {
            Err(VerifyError::Credential(
                CredentialError::Token(JoseError::UnknownKey)
                | CredentialError::Certificate(CertificateError::UnknownIssuer),
            )) => {
                let published = self.web()?.refreshed().await?;
                Ok((check(&published)?, published))
            }
            checked => Ok((checked?, published)),
        }
    }
}

/// The key that a certificate is asked for: none for a token.
struct IssueKey {
    csr: Vec<u8>,
    spki: Option<Digest>,
    pem: Option<SecretString>,
}

impl IssueKey {
    fn of(kind: &Kind) -> Result<Self, Error> {
        let (csr, pem) = match kind {
            Kind::Token { .. } => return Ok(Self { csr: Vec::new(), spki: None, pem: None }),
            Kind::Certificate { csr: Some(csr), .. } => (csr.clone(), None),
            Kind::Certificate { csr: None, .. } => fresh_csr()?,
        };
        let key = key_of_csr(&csr).map_err(|why| Error::Config(format!("the certificate request: {why}")))?;
        Ok(Self { spki: Some(key.spki_digest()), csr, pem })
    }
}

fn fresh_csr() -> Result<(Vec<u8>, Option<SecretString>), Error> {
    let failed = |error: rcgen::Error| Error::Config(format!("cannot make a key: {error}"));
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let request = rcgen::CertificateParams::default().serialize_request(&key).map_err(failed)?;
    Ok((request.der().to_vec(), Some(key.serialize_pem().into())))
}
