//! A request as the wire has it, to a request as the core takes it: each field checked, or refused by name.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::str::FromStr;

use daypass_core::decision::Outward;
use daypass_core::request::{Bind, Emergency, Form, Renewed, Request};
use daypass_evidence::entry::{Index, Profile};
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_proto::v1::token_parameters::Confirmation;
use daypass_proto::v1::{
    CertificateParameters, CertificateProfile, IssueRequest, TokenParameters, TokenProfile,
};
use daypass_verify::csr::key_of_csr;
use daypass_verify::ids::RequestId;
use daypass_verify::time::{Seconds, UnixMs};

use super::authenticate::Caller;
use super::status::Outgoing;
use crate::api::fields;
pub(super) use crate::api::fields::optional;

/// How many values a list may have.
const LIST_MAX: usize = 64;

/// The request of `caller`; `supersedes` is the issuance that it renews, found in the log.
pub(super) fn request(
    wire: &IssueRequest,
    caller: &Caller,
    supersedes: Option<Renewed>,
) -> Result<Request, Outgoing> {
    Ok(Request {
        id: request_id(wire, caller)?,
        id_is_callers: !wire.request_id.is_empty(),
        task: required("task", &wire.task)?,
        identity: optional("identity", &wire.identity)?,
        audiences: set("audiences", &wire.audiences)?,
        actions: set("actions", &wire.actions)?,
        resources: set("resources", &wire.resources)?,
        ttl_s: ttl(wire)?,
        form: form(wire)?,
        run: fields::run(&wire.run)?,
        supersedes,
        refuse_narrowed: wire.refuse_narrowed,
        client: caller.client.clone(),
        approval: approval(&wire.approval)?,
        emergency: wire.emergency.as_ref().map(|emergency| Emergency {
            reason: emergency.reason.clone(),
            reference: emergency.reference.clone(),
        }),
        for_workload: wire.delegation.is_some(),
    })
}

/// The caller's id for the request, or else ours.
pub(super) fn request_id(wire: &IssueRequest, caller: &Caller) -> Result<RequestId, Outgoing> {
    Ok(optional("request_id", &wire.request_id)?.unwrap_or(caller.request))
}

fn required(field: &str, text: &str) -> Result<String, Outgoing> {
    if text.is_empty() || text.len() > 128 {
        return Err(Outgoing::malformed(field, "expected 1 to 128 bytes"));
    }
    Ok(text.to_owned())
}

pub(super) fn set<T: FromStr<Err: Display> + Ord>(
    field: &str,
    texts: &[String],
) -> Result<BTreeSet<T>, Outgoing> {
    if texts.len() > LIST_MAX {
        return Err(Outgoing::malformed(
            field,
            format!("{} values: expected at most {LIST_MAX}", texts.len()),
        ));
    }
    let parse =
        |text: &String| text.parse().map_err(|error: T::Err| Outgoing::malformed(field, error.to_string()));
    texts.iter().map(parse).collect()
}

fn ttl(wire: &IssueRequest) -> Result<Option<Seconds>, Outgoing> {
    wire.ttl.as_ref().map(|ttl| fields::ttl((ttl.nanos == 0).then_some(ttl.seconds))).transpose()
}

fn approval(text: &str) -> Result<Option<Index>, Outgoing> {
    if text.is_empty() {
        Ok(None)
    } else {
        Err(Outgoing::new(Outward::Unimplemented, "approvals are not offered by this release"))
    }
}

fn form(wire: &IssueRequest) -> Result<Form, Outgoing> {
    match &wire.credential {
        None => Ok(Form::Token { profile: None, bind: Bind::Auto }),
        Some(Wanted::Token(token)) => Ok(Form::Token { profile: token_profile(token)?, bind: bind(token)? }),
        Some(Wanted::Certificate(certificate)) => {
            let profile = certificate_profile(certificate)?;
            let key = key_of_csr(&certificate.csr).map_err(|error| Outgoing {
                fields: vec![("certificate.csr".to_owned(), error.to_string())],
                ..Outgoing::new(Outward::CsrRefused, error.to_string())
            })?;
            Ok(Form::Certificate { profile, key })
        }
    }
}

fn token_profile(token: &TokenParameters) -> Result<Option<Profile>, Outgoing> {
    match TokenProfile::try_from(token.profile) {
        Ok(TokenProfile::Unspecified) => Ok(None),
        Ok(TokenProfile::AccessToken) => Ok(Some(Profile::AccessToken)),
        Ok(TokenProfile::JwtSvid) => Ok(Some(Profile::JwtSvid)),
        Err(_) => Err(Outgoing::malformed("token.profile", "expected ACCESS_TOKEN or JWT_SVID")),
    }
}

fn certificate_profile(certificate: &CertificateParameters) -> Result<Option<Profile>, Outgoing> {
    match CertificateProfile::try_from(certificate.profile) {
        Ok(CertificateProfile::Unspecified) => Ok(None),
        Ok(CertificateProfile::X509Svid) => Ok(Some(Profile::X509Svid)),
        Ok(CertificateProfile::CommonName) => Ok(Some(Profile::CommonName)),
        Ok(CertificateProfile::Node) => Ok(Some(Profile::Node)),
        Err(_) => Err(Outgoing::malformed("certificate.profile", "expected X509_SVID, COMMON_NAME or NODE")),
    }
}

fn bind(token: &TokenParameters) -> Result<Bind, Outgoing> {
    match &token.confirmation {
        None => Ok(Bind::Auto),
        Some(Confirmation::Certificate(true)) => Ok(Bind::Certificate),
        Some(Confirmation::Certificate(false)) => Ok(Bind::Bearer),
        Some(Confirmation::Jkt(_)) => {
            Err(Outgoing::new(Outward::Unimplemented, "binding by DPoP is not offered by this release"))
        }
    }
}

/// A protobuf timestamp for a moment.
pub(super) fn timestamp(at: UnixMs) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.get().rem_euclid(1000) * 1_000_000).unwrap_or_default();
    prost_types::Timestamp { seconds: at.seconds(), nanos }
}

/// The moment that a protobuf timestamp names.
pub(super) fn moment(field: &str, at: Option<&prost_types::Timestamp>) -> Result<Option<UnixMs>, Outgoing> {
    let Some(at) = at else { return Ok(None) };
    if !(0..1_000_000_000).contains(&at.nanos) || !(0..253_402_300_800).contains(&at.seconds) {
        return Err(Outgoing::malformed(field, "expected a time from 1970 to 9999"));
    }
    Ok(Some(UnixMs::from_seconds(at.seconds).plus_millis(i64::from(at.nanos / 1_000_000))))
}
