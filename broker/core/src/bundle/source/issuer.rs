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
use crate::bundle::preset::{CLUSTER_URL, Defaults, Preset};
use crate::bundle::section::Section;
use crate::bundle::value::OneOf;

pub(super) fn issuer(section: &mut Section<'_>, files: &[SourceFile]) -> Option<Issuer> {
    let preset: Option<Preset> = section.optional("preset");
    let Some(form) = form(section, preset) else {
        section.give_up();
        return None;
    };
    let defaults = preset.map(Preset::defaults);
    let given = defaults.as_ref();
    let kind = match form {
        Form::Oidc => oidc(section, files, preset, given),
        Form::ClientCa => client_ca(section, files, preset),
        Form::Nodes => Some(IssuerKind::Nodes),
    };
    let replay =
        given.map_or(if form == Form::Oidc { ProofUse::Once } else { ProofUse::UntilExpiry }, |it| it.replay);
    let environment = section.required("environment");
    let in_cluster = matches!(kind, Some(IssuerKind::Oidc { keys: KeySource::Cluster, .. }));
    Some(Issuer {
        preset,
        replay: section.optional("replay").unwrap_or(replay),
        proof_caps: section.optional("proof_caps").unwrap_or(given.is_some_and(|it| it.proof_caps)),
        actor: section.optional("actor").unwrap_or(Actor::Workload),
        internal: section.flag("internal") || in_cluster,
        disabled: section.flag("disabled"),
        kind: kind?,
        environment: environment?,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Oidc,
    ClientCa,
    Nodes,
}

/// What the issuer makes: as it is written, or as its preset says.
fn form(section: &mut Section<'_>, preset: Option<Preset>) -> Option<Form> {
    // A preset that cannot be read was noted, and would have said what is missing here.
    if preset.is_none() && section.raw("preset").is_some() {
        return None;
    }
    let of_preset = preset.map(|it| it.defaults().form);
    let written: String = section.defaulting("kind", of_preset.map(str::to_owned))?;
    if of_preset.is_some_and(|it| it != written) {
        section.conflict("kind", "is not what the preset makes: leave it out");
        return None;
    }
    match written.as_str() {
        "oidc" => Some(Form::Oidc),
        "client_ca" => Some(Form::ClientCa),
        "nodes" => Some(Form::Nodes),
        _ => {
            section.conflict("kind", "is neither `oidc`, `client_ca` nor `nodes`: expected one of them");
            None
        }
    }
}

fn oidc(
    section: &mut Section<'_>,
    files: &[SourceFile],
    preset: Option<Preset>,
    given: Option<&Defaults>,
) -> Option<IssuerKind> {
    let owned = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect::<BTreeSet<String>>();
    let keys = keys(section, files);
    let of_cluster = preset == Some(Preset::Kubernetes) && matches!(keys, Some(KeySource::Cluster));
    let url_given = given.and_then(|it| it.url).or(of_cluster.then_some(CLUSTER_URL));
    let url = section.defaulting("url", url_given.map(str::to_owned));
    let algs = match given {
        Some(given) if section.raw("algs").is_none() => owned(given.algs),
        _ => section.required_set("algs"),
    };
    let mut typs: BTreeSet<String> = section.set("typs");
    if typs.is_empty() {
        typs = owned(given.map_or(&["JWT"], |it| it.typs));
    }
    let proof_ttl_max_s = section.defaulting::<Seconds>("proof_ttl_max", given.map(|it| it.proof_ttl_max));
    let instance_given = given.and_then(|it| it.instance_claim).map(str::to_owned);
    let instance_claim = section.optional("instance_claim").or(instance_given);
    let refuse_key_urls = section.flag("refuse_key_urls");
    let tls_ca = certificates(section, files, "tls_ca", "tls_ca_file").unwrap_or_default();
    if matches!(keys, Some(KeySource::Cluster)) && !tls_ca.is_empty() {
        section
            .conflict("in_cluster", "comes with the cluster's own CA: leave out `tls_ca` and `tls_ca_file`");
    }
    // A declaration may ask for more than its preset, never for less.
    let mut required_claims: BTreeSet<_> =
        section.set("required_claims").into_iter().map(|OneOf(it)| it).collect();
    required_claims.extend(given.iter().flat_map(|it| it.required).map(|row| owned(row)));
    Some(IssuerKind::Oidc {
        url: url?,
        keys: keys?,
        algs,
        typs,
        proof_ttl_max_s: proof_ttl_max_s?,
        instance_claim,
        refuse_key_urls,
        tls_ca,
        required_claims,
    })
}

/// `jwks_url`, `jwks_file`, `in_cluster`, or none of them: discovery.
fn keys(section: &mut Section<'_>, files: &[SourceFile]) -> Option<KeySource> {
    let url = section.optional("jwks_url");
    let file: Option<String> = section.optional("jwks_file");
    match (url, file, section.flag("in_cluster")) {
        (None, None, false) => Some(KeySource::Discovery),
        (None, None, true) => Some(KeySource::Cluster),
        (Some(url), None, false) => Some(KeySource::JwksUrl(url)),
        (None, Some(path), false) => beside(section, files, "jwks_file", &path).map(KeySource::Jwks),
        (Some(_), Some(_), _) => {
            section.conflict("jwks_file", "and `jwks_url` are both given: expected one of them");
            None
        }
        (_, _, true) => {
            section.conflict(
                "in_cluster",
                "takes the keys from the cluster's own API server: leave out `jwks_url` and `jwks_file`",
            );
            None
        }
    }
}

fn client_ca(section: &mut Section<'_>, files: &[SourceFile], preset: Option<Preset>) -> Option<IssuerKind> {
    let ca = certificates(section, files, "ca", "ca_file");
    if ca.as_ref().is_some_and(Vec::is_empty) {
        section.conflict(
            "ca",
            "holds no certificate: expected PEM in `ca`, or a file of this bundle in `ca_file`",
        );
    }
    let trust_domain = match preset {
        Some(_) => Some(section.required("trust_domain")?),
        None => section.optional("trust_domain"),
    };
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
