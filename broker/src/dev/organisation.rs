//! The sample organisation, brought to loopback: each declared issuer of ID tokens runs here, under its own URL and
//! keys, and the client CA is one of ours. Everything else is as its files say.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_core::bundle::object::{IssuerKind, KeySource};
use daypass_core::bundle::{Bundle, Finding, SourceFile, compile};
use daypass_verify::ids::Name;
use daypass_verify::pointer;
use serde_json::{Map, Value, json};

use super::DevError;
use super::files::private_directory;
use super::issuer::{DevIssuer, Start, Workloads};
use super::state::trust_domain;
use super::workload_ca::WorkloadCa;
use crate::clock::Clock;

/// The sample's files, part of the program.
#[derive(rust_embed::Embed)]
#[folder = "../policies/"]
#[include = "*.toml"]
#[include = "*.cedar"]
#[include = "*.cedarschema"]
#[include = "*.pem"]
struct Sample;

/// The files of the sample organisation, as they lie in `policies/`.
#[must_use]
pub fn sample() -> Vec<SourceFile> {
    let text = |path: &str| Sample::get(path).map(|file| String::from_utf8_lossy(&file.data).into_owned());
    Sample::iter()
        .filter_map(|path| Some(SourceFile { text: text(&path)?, path: path.into_owned() }))
        .collect()
}

/// A running organisation.
pub struct Organisation {
    /// What declares it: the sample's files with this machine's issuers.
    pub bundle: Bundle,
    /// The CA of its workloads.
    pub workloads: WorkloadCa,
    issuers: BTreeMap<Name, DevIssuer>,
    audience: String,
}

impl Organisation {
    /// Starts the issuers and the CA, with keys kept in `folder`, and compiles the bundle that declares them.
    /// `audience` is the issuer URL of the broker that they make proofs for.
    ///
    /// # Errors
    /// When an issuer does not start, or the bundle is refused.
    pub async fn start(folder: &Path, audience: &str, clock: &Arc<dyn Clock>) -> Result<Self, DevError> {
        Self::start_declaring(sample(), folder, audience, clock).await
    }

    /// The same for other files than the sample's.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn start_declaring(
        files: Vec<SourceFile>,
        folder: &Path,
        audience: &str,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, DevError> {
        let declared = compile(&files).map_err(|findings| refused(&findings))?;
        let mut issuers = BTreeMap::new();
        for (name, issuer) in &declared.declared().issuers {
            if runs_somewhere(&issuer.kind) {
                let own = folder.join("issuers").join(name.as_str());
                private_directory(&folder.join("issuers"))?;
                private_directory(&own)?;
                let start = Start {
                    port: 0,
                    state: Some(own),
                    rs256: None,
                    workloads: workloads(&declared, name, audience),
                    clock: Arc::clone(clock),
                };
                issuers.insert(name.clone(), DevIssuer::start(start).await?);
            }
        }
        let workloads = WorkloadCa::load_or_new(folder, &trust_domain()?, clock.now())?;
        let bundle =
            compile(&brought_here(files, &issuers, &workloads)?).map_err(|findings| refused(&findings))?;
        Ok(Self { bundle, workloads, issuers, audience: audience.to_owned() })
    }

    /// Other files, brought to the issuers and the CA that run already.
    ///
    /// # Errors
    /// When the bundle is refused.
    pub fn bundle_of(&self, files: Vec<SourceFile>) -> Result<Bundle, DevError> {
        let brought = brought_here(files, &self.issuers, &self.workloads)?;
        compile(&brought).map_err(|findings| refused(&findings))
    }

    /// A fresh ID token of `issuer` for the identity or operator `who`, as its first clause for that issuer asks.
    ///
    /// # Errors
    /// When there is no such clause.
    pub fn token(&self, issuer: &str, who: &str) -> Result<String, DevError> {
        let missing = || DevError::Story(format!("the bundle has no `{who}` with tokens of `{issuer}`"));
        let claims = self.claims(issuer, who).ok_or_else(missing)?;
        self.issuer(issuer).ok_or_else(missing)?.issue(claims)
    }

    /// The claims of such a token, less what every token has.
    #[must_use]
    pub fn claims(&self, issuer: &str, who: &str) -> Option<Map<String, Value>> {
        let (name, _) = self.issuers.get_key_value(issuer)?;
        claims(&self.bundle, name, who, &self.audience)
    }

    /// A running issuer, by its declared name.
    #[must_use]
    pub fn issuer(&self, name: &str) -> Option<&DevIssuer> {
        self.issuers.get(name)
    }

    /// Where a token for `who` can be minted.
    pub(super) fn mint_url(&self, issuer: &str, who: &str) -> Option<String> {
        let issuer = self.issuers.get(issuer)?;
        Some(format!("{}/mint?identity={who}", issuer.url()))
    }

    /// The root of an issuer's HTTPS listener, PEM.
    pub(super) fn issuer_root(&self, issuer: &str) -> Option<String> {
        let root = self.issuers.get(issuer)?.root();
        Some(pem::encode(&pem::Pem::new("CERTIFICATE", root.as_ref())))
    }
}

/// An issuer whose keys lie in the bundle needs no server.
fn runs_somewhere(kind: &IssuerKind) -> bool {
    matches!(kind, IssuerKind::Oidc { keys, .. } if !matches!(keys, KeySource::Jwks(_)))
}

fn refused(findings: &[Finding]) -> DevError {
    let lines: Vec<String> =
        findings.iter().filter(|finding| finding.refuses).map(|finding| format!("  {finding}")).collect();
    DevError::Bundle(lines.join("\n"))
}

/// Whom an issuer mints for: the identities and operators that have a clause for it.
fn workloads(bundle: &Bundle, issuer: &Name, audience: &str) -> Workloads {
    let declared = bundle.declared();
    let names = declared.identities.keys().map(ToString::to_string);
    let names = names.chain(declared.operators.keys().map(ToString::to_string));
    let known: BTreeMap<String, Map<String, Value>> =
        names.filter_map(|name| Some((name.clone(), claims(bundle, issuer, &name, audience)?))).collect();
    Arc::new(move |who| known.get(who).cloned().map(with_instance))
}

/// The claims that satisfy the first clause of `who` for `issuer`.
fn claims(bundle: &Bundle, issuer: &Name, who: &str, audience: &str) -> Option<Map<String, Value>> {
    let declared = bundle.declared();
    let of_identity = declared.identities.get(who).map(|identity| &identity.proofs);
    let proofs = of_identity.or_else(|| declared.operators.get(who).map(|operator| &operator.proofs))?;
    let clause = proofs.iter().find(|clause| &clause.issuer == issuer)?;
    let mut claims = Map::new();
    claims.insert("sub".into(), clause.subject.clone()?.into());
    claims.insert("aud".into(), audience.into());
    for (name, values) in &clause.claims {
        claims.insert(name.clone(), json!(values.first()?));
    }
    if let IssuerKind::Oidc { instance_claim: Some(claim), .. } = &declared.issuers.get(issuer)?.kind {
        claims.insert(claim.clone(), "dev".into());
    }
    Some(with_instance(claims.into_iter().fold(Map::new(), nested)))
}

/// `claims` with one more, in the objects that its name leads through.
fn nested(mut claims: Map<String, Value>, (name, value): (String, Value)) -> Map<String, Value> {
    let Some((last, holders)) = pointer::path(&name).and_then(|mut path| Some((path.pop()?, path))) else {
        return claims;
    };
    let mut object = &mut claims;
    for holder in holders {
        let inner = object.entry(holder).or_insert_with(|| Map::new().into());
        let Some(members) = inner.as_object_mut() else { return claims };
        object = members;
    }
    object.insert(last, value);
    claims
}

/// Each token is one run of its workload.
fn with_instance(mut claims: Map<String, Value>) -> Map<String, Value> {
    if let Some(run) = claims.get_mut("run_id") {
        *run = json!(crate::clock::SystemClock.now().get().to_string());
    }
    claims
}

/// The same files, with the issuers' URLs, roots and addresses of this machine.
fn brought_here(
    sources: Vec<SourceFile>,
    issuers: &BTreeMap<Name, DevIssuer>,
    workloads: &WorkloadCa,
) -> Result<Vec<SourceFile>, DevError> {
    let bring = |source: SourceFile| {
        let broken = |error: &dyn std::fmt::Display| DevError::Bundle(format!("  {}: {error}", source.path));
        if !source.path.ends_with(".toml") {
            return Ok(source);
        }
        let mut table: toml::Table = toml::from_str(&source.text).map_err(|error| broken(&error))?;
        if !table.contains_key("issuer") {
            return Ok(source);
        }
        for (name, declared) in
            table.get_mut("issuer").and_then(toml::Value::as_table_mut).into_iter().flatten()
        {
            let Some(declared) = declared.as_table_mut() else { continue };
            match issuers.get(name.as_str()) {
                Some(issuer) => point_at(declared, issuer),
                None if declared.get("kind").and_then(toml::Value::as_str) == Some("client_ca") => {
                    believe(declared, workloads).map_err(|error| broken(&error))?;
                }
                // The same on every machine: whom the broker let in itself, and keys that lie in the bundle.
                None => {}
            }
        }
        let text = toml::to_string(&table).map_err(|error| broken(&error))?;
        Ok(SourceFile { text, path: source.path })
    };
    sources.into_iter().map(bring).collect()
}

fn point_at(declared: &mut toml::Table, issuer: &DevIssuer) {
    declared.remove("in_cluster");
    declared.insert("url".into(), issuer.url().into());
    declared.insert("tls_ca".into(), pem_of(issuer.root()).into());
    declared.insert("internal".into(), true.into());
    declared.insert("algs".into(), toml::Value::Array(vec!["ES256".into()]));
}

fn believe(declared: &mut toml::Table, workloads: &WorkloadCa) -> Result<(), DevError> {
    let ours = trust_domain()?;
    match declared.get("trust_domain").and_then(toml::Value::as_str) {
        Some(other) if other != ours.as_str() => {
            return Err(DevError::Story(format!("trust domain `{other}`: `dev` knows `{ours}` alone")));
        }
        _ => {}
    }
    for replaced in ["ca_file", "crl_file"] {
        declared.remove(replaced);
    }
    declared.insert("ca".into(), pem_of(workloads.root()).into());
    Ok(())
}

fn pem_of(der: &[u8]) -> String {
    let lines: Vec<String> = STANDARD
        .encode(der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
