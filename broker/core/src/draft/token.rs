//! Tokens: access tokens (RFC 9068) and JWT-SVIDs (SPIFFE), up to their signing input.

use std::collections::{BTreeMap, BTreeSet};

use daypass_evidence::canonical;
use daypass_evidence::entry::Profile;
use daypass_verify::ids::CredentialId;
use daypass_verify::scope::Audience;
use daypass_verify::task::TaskDetail;
use serde::Serialize;

use super::{DraftError, P1363_LEN, RSA_LEN, SigningKey, base64url};
use crate::decision::{Bound, Grant};
use crate::state::RS256;

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: Audiences<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: CredentialId,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Actor<'a>>,
    authorization_details: [TaskDetail; 1],
    #[serde(flatten)]
    of_task: &'a BTreeMap<String, String>,
}

/// One audience is a string: stock receivers know no other form.
#[derive(Serialize)]
#[serde(untagged)]
enum Audiences<'a> {
    One(&'a Audience),
    Several(&'a BTreeSet<Audience>),
}

/// RFC 8705, section 3.1.
#[derive(Serialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    certificate: String,
}

/// The node that asked for the subject: RFC 8693, section 4.1.
#[derive(Serialize)]
struct Actor<'a> {
    sub: &'a str,
}

/// The signing input: header and claims in base64url with a dot between them (RFC 7515, section 5.1).
pub(super) fn signing_input(
    grant: &Grant,
    key: &SigningKey,
    our_issuer: &str,
) -> Result<Vec<u8>, DraftError> {
    if key.as_authority().is_some() {
        return Err(DraftError::WrongKey("a token key"));
    }
    let typ = if grant.profile() == Profile::AccessToken { "at+jwt" } else { "JWT" };
    let header = Header { alg: key.alg(), kid: key.id().as_str(), typ };
    let header = canonical::to_vec_unbounded(&header)?;
    let claims = canonical::to_vec_unbounded(&claims(grant, our_issuer))?;
    Ok(format!("{}.{}", base64url(&header), base64url(&claims)).into_bytes())
}

fn claims<'a>(grant: &'a Grant, our_issuer: &'a str) -> Claims<'a> {
    let audiences = &grant.scope().audiences;
    let subject = grant.subject.as_str();
    Claims {
        iss: our_issuer,
        sub: subject,
        aud: match audiences.first() {
            Some(only) if audiences.len() == 1 => Audiences::One(only),
            _ => Audiences::Several(audiences),
        },
        client_id: (grant.profile() == Profile::AccessToken).then_some(subject),
        iat: grant.issued_at().seconds(),
        nbf: grant.not_before().seconds(),
        exp: grant.expires_at().seconds(),
        jti: grant.id,
        cnf: match &grant.binding {
            Bound::Certificate(binding) => {
                Some(Confirmation { certificate: base64url(binding.certificate.as_bytes()) })
            }
            Bound::Key(_) | Bound::Nothing => None,
        },
        act: grant.node.as_ref().map(|node| Actor { sub: node.as_str() }),
        authorization_details: [TaskDetail::new(grant.task().name.clone(), grant.scope())],
        of_task: &grant.token_claims,
    }
}

pub(super) fn assemble(signing_input: Vec<u8>, alg: &str, signature: &[u8]) -> Result<String, DraftError> {
    match alg {
        RS256 if !RSA_LEN.contains(&signature.len()) => {
            return Err(DraftError::Signature(
                "as many bytes as the modulus of an RSA key (RFC 7518, section 3.3)",
            ));
        }
        RS256 => {}
        _ if signature.len() != P1363_LEN => {
            return Err(DraftError::Signature("64 bytes, r and s (RFC 7518, section 3.4)"));
        }
        _ => {}
    }
    let mut token = String::from_utf8(signing_input).map_err(|error| DraftError::Value(error.to_string()))?;
    token.push('.');
    token.push_str(&base64url(signature));
    Ok(token)
}
