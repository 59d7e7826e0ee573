//! Reading issuers: whom we believe, and where their keys come from.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_evidence::entry::{Actor, ProofUse};
use daypass_verify::time::Seconds;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::bundle::SourceFile;
use crate::bundle::object::{Issuer, IssuerKind, KeySource};
use crate::bundle::section::Section;

pub(super) fn issuer(section: &mut Section<'_>, files: &[SourceFile]) -> Option<Issuer> {
    let form: Option<String> = section.required("kind");
    let (kind, replay) = match form.as_deref() {
        Some("oidc") => (oidc(section, files), ProofUse::Once),
        Some("client_ca") => (client_ca(section, files), ProofUse::UntilExpiry),
        other => {
            if other.is_some() {
                section.conflict("kind", "is neither `oidc` nor `client_ca`: expected one of them");
            }
            section.give_up();
            return None;
        }
    };
    let environment = section.required("environment");
    let replay = section.optional("replay").unwrap_or(replay);
    Some(Issuer {
        replay,
        proof_caps: section.flag("proof_caps"),
        actor: section.optional("actor").unwrap_or(Actor::Workload),
        internal: section.flag("internal"),
        disabled: section.flag("disabled"),
        kind: kind?,
        environment: environment?,
    })
}

fn oidc(section: &mut Section<'_>, files: &[SourceFile]) -> Option<IssuerKind> {
    let url = section.required("url");
    let keys = keys(section, files);
    let algs = section.required_set("algs");
    let mut typs: BTreeSet<String> = section.set("typs");
    if typs.is_empty() {
        typs.insert("JWT".to_owned());
    }
    let proof_ttl_max_s = section.required::<Seconds>("proof_ttl_max");
    let instance_claim = section.optional("instance_claim");
    let refuse_key_urls = section.flag("refuse_key_urls");
    let tls_ca = certificates(section, files, "tls_ca", "tls_ca_file").unwrap_or_default();
    Some(IssuerKind::Oidc {
        url: url?,
        keys: keys?,
        algs,
        typs,
        proof_ttl_max_s: proof_ttl_max_s?,
        instance_claim,
        refuse_key_urls,
        tls_ca,
    })
}

/// `jwks_url`, `jwks_file`, or neither: discovery.
fn keys(section: &mut Section<'_>, files: &[SourceFile]) -> Option<KeySource> {
    let url = section.optional("jwks_url");
    let file: Option<String> = section.optional("jwks_file");
    match (url, file) {
        (None, None) => Some(KeySource::Discovery),
        (Some(url), None) => Some(KeySource::JwksUrl(url)),
        (None, Some(path)) => beside(section, files, "jwks_file", &path).map(KeySource::Jwks),
        (Some(_), Some(_)) => {
            section.conflict("jwks_file", "and `jwks_url` are both given: expected one of them");
            None
        }
    }
}

fn client_ca(section: &mut Section<'_>, files: &[SourceFile]) -> Option<IssuerKind> {
    let ca = certificates(section, files, "ca", "ca_file");
    if ca.as_ref().is_some_and(Vec::is_empty) {
        section.conflict(
            "ca",
            "holds no certificate: expected PEM in `ca`, or a file of this bundle in `ca_file`",
        );
    }
    let trust_domain = section.optional("trust_domain");
    let crl_file = section.optional("crl_file");
    Some(IssuerKind::ClientCa { ca: ca?, trust_domain, crl_file })
}

/// The certificates in the PEM text behind `inline`, or in the file that `file` names: DER, base64; none when they
/// could not be read.
fn certificates(
    section: &mut Section<'_>,
    files: &[SourceFile],
    inline: &'static str,
    file: &'static str,
) -> Option<Vec<String>> {
    let written: Option<String> = section.optional(inline);
    let named: Option<String> = section.optional(file);
    let (key, pem) = match (written, named) {
        (Some(pem), _) => (inline, pem),
        (None, Some(path)) => (file, beside(section, files, file, &path)?),
        (None, None) => return Some(Vec::new()),
    };
    let ders: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    if ders.is_err() {
        section.conflict(key, "is not PEM: expected `-----BEGIN CERTIFICATE-----` blocks");
    }
    Some(ders.ok()?.iter().map(|der| STANDARD.encode(der)).collect())
}

/// The text of another file of the same bundle.
fn beside(section: &Section<'_>, files: &[SourceFile], key: &str, path: &str) -> Option<String> {
    let found = files.iter().find(|file| file.path == path).map(|file| file.text.clone());
    if found.is_none() {
        section.conflict(
            key,
            &format!("names `{path}`, which is no file of this bundle: expected a path from its top"),
        );
    }
    found
}
