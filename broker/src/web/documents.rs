//! The documents by which verifiers come to know this issuer and its keys.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use daypass_verify::time::Seconds;
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};

use super::{IssuerUrl, Page, oauth};

/// A public key that verifiers should trust. The JWK is as [`daypass_verify::jwks::p256_jwk`] writes it.
#[derive(Debug, Clone)]
pub enum PublishedKey {
    /// Signs access tokens: `use` is `sig`.
    Token(Value),
    /// Signs JWT-SVIDs: `use` is `jwt-svid`.
    JwtSvid(Value),
    /// A root of X509-SVIDs: `use` is `x509-svid`.
    X509Svid {
        /// Its key.
        jwk: Value,
        /// Its self-signed certificate.
        certificate: CertificateDer<'static>,
    },
}

/// What the keys' schedule says to verifiers.
#[derive(Debug, Clone, Copy)]
pub struct KeySchedule {
    /// How long a copy may be used: at most the time for which a key is published before it signs.
    pub max_age_s: Seconds,
    /// Grows with each change of the keys, as `spiffe_sequence`.
    pub sequence: u64,
}

/// The documents, each ready to be served.
#[derive(Debug, Clone)]
pub struct Documents {
    /// OpenID Connect Discovery 1.0 and RFC 8414 at once: one document under both names.
    pub discovery: Page,
    /// RFC 7517: the keys of access tokens.
    pub jwks: Page,
    /// The SPIFFE trust bundle: the keys of JWT-SVIDs and the roots of X509-SVIDs.
    pub bundle: Page,
}

/// Writes the documents of `issuer`, whose keys are `keys`: those published now, signing or not.
#[must_use]
pub fn documents(issuer: &IssuerUrl, keys: &[PublishedKey], schedule: KeySchedule) -> Documents {
    Documents {
        discovery: Page::json(&discovery(issuer, keys), schedule.max_age_s),
        jwks: Page::json(&json!({ "keys": token_keys(keys).collect::<Vec<_>>() }), schedule.max_age_s),
        bundle: Page::json(&bundle(keys, schedule), schedule.max_age_s),
    }
}

/// RFC 8414, section 2, and OpenID Connect Discovery 1.0, section 3. Only what is there is named: nobody logs in here,
/// so that there is no authorization endpoint, and the two members that OpenID Connect demands of one stay as they are
/// for issuers without.
fn discovery(issuer: &IssuerUrl, keys: &[PublishedKey]) -> Value {
    let mut algorithms: Vec<_> = token_keys(keys).filter_map(|jwk| jwk.get("alg")?.as_str()).collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let endpoints = oauth::ENDPOINTS.map(|(name, path, _)| (name.to_owned(), issuer.at(path).into()));
    let endpoints = Map::from_iter(endpoints);
    let methods = oauth::ENDPOINTS
        .map(|(name, _, methods)| (format!("{name}_auth_methods_supported"), methods.to_vec().into()));
    let named = json!({
        "issuer": issuer.as_str(),
        "jwks_uri": issuer.at("/jwks"),
        "grant_types_supported": oauth::GRANTS,
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
        "authorization_details_types_supported": ["task"],
        "tls_client_certificate_bound_access_tokens": true,
        // The listener asks for a certificate and needs none, so that an endpoint needs no second address.
        "mtls_endpoint_aliases": endpoints.clone(),
    });
    named
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .chain(endpoints)
        .chain(methods)
        .collect::<Map<_, _>>()
        .into()
}

fn token_keys(keys: &[PublishedKey]) -> impl Iterator<Item = &Value> {
    keys.iter().filter_map(|key| match key {
        PublishedKey::Token(jwk) => Some(jwk),
        PublishedKey::JwtSvid(_) | PublishedKey::X509Svid { .. } => None,
    })
}

/// SPIFFE Trust Domain and Bundle, section 4.
fn bundle(keys: &[PublishedKey], schedule: KeySchedule) -> Value {
    json!({
        "spiffe_sequence": schedule.sequence,
        "spiffe_refresh_hint": schedule.max_age_s.get(),
        "keys": keys.iter().filter_map(in_bundle).collect::<Vec<_>>(),
    })
}

fn in_bundle(key: &PublishedKey) -> Option<Value> {
    match key {
        PublishedKey::Token(_) => None,
        PublishedKey::JwtSvid(jwk) => Some(jwk.clone()),
        PublishedKey::X509Svid { jwk, certificate } => {
            let mut members: Map<String, Value> = jwk.as_object()?.clone();
            members.insert("x5c".into(), json!([BASE64_STANDARD.encode(certificate)]));
            Some(members.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use daypass_verify::jwks::{KeySet, p256_jwk};
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    fn jwk(use_: &str) -> (String, Value) {
        let random = ring::rand::SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let (kid, jwk) = p256_jwk(pair.public_key().as_ref().try_into().unwrap(), use_);
        (kid.to_string(), jwk)
    }

    fn written(keys: &[PublishedKey]) -> Documents {
        let issuer = "https://daypass.example.org".parse().unwrap();
        documents(&issuer, keys, KeySchedule { max_age_s: Seconds::new(300), sequence: 7 })
    }

    #[test]
    fn discovery_names_only_what_exists() {
        let discovery: Value =
            serde_json::from_slice(written(&[PublishedKey::Token(jwk("sig").1)]).discovery.content())
                .unwrap();
        assert_eq!(discovery["issuer"], "https://daypass.example.org");
        assert_eq!(discovery["jwks_uri"], "https://daypass.example.org/jwks");
        assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256"]));
        assert_eq!(discovery["token_endpoint"], "https://daypass.example.org/token");
        for absent in ["authorization_endpoint", "userinfo_endpoint", "scopes_supported"] {
            assert!(discovery.get(absent).is_none(), "{absent}");
        }
    }

    #[test]
    fn a_key_is_published_for_its_own_use_alone() {
        let (token, svid, root) = (jwk("sig"), jwk("jwt-svid"), jwk("x509-svid"));
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .clone();
        let documents = written(&[
            PublishedKey::Token(token.1),
            PublishedKey::JwtSvid(svid.1),
            PublishedKey::X509Svid { jwk: root.1, certificate: certificate.clone() },
        ]);
        let (jwks, dropped) = KeySet::parse(documents.jwks.content()).unwrap();
        assert!(jwks.key(&token.0).is_some() && jwks.len() == 1 && dropped.is_empty());

        let (svids, _) = KeySet::parse_bundle(documents.bundle.content()).unwrap();
        assert!(svids.key(&svid.0).is_some() && svids.len() == 1);
        let bundle: Value = serde_json::from_slice(documents.bundle.content()).unwrap();
        assert_eq!((&bundle["spiffe_sequence"], &bundle["spiffe_refresh_hint"]), (&json!(7), &json!(300)));
        assert_eq!(bundle["keys"][1]["x5c"], json!([BASE64_STANDARD.encode(&certificate)]));
        assert_eq!(bundle["keys"][1]["use"], "x509-svid");
    }
}
