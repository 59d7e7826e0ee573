//! One thing spoiled at a time, in tokens and certificates that would be good.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_evidence::entry::ProofUse;
use rcgen::{DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use serde_json::{Value, json};

use super::*;
use crate::bundle::object::IssuerKind;
use crate::fixture::{self, Authority, CI, NOW, OURS, TokenKey, WORLD};

type Spoil = fn(&mut Value);

fn bundle() -> Arc<Bundle> {
    fixture::bundle(&fixture::declared(), fixture::PERMIT_ALL)
}

fn proof(header: &Value, claims: &Value, key: &TokenKey) -> Result<UnverifiedProof, ProofError> {
    let token = UnverifiedToken::parse(&key.mint(header, claims))?;
    Ok(UnverifiedProof::IdToken { token, holder: None })
}

fn inner(header: &Value, claims: &Value, key: &TokenKey) -> Option<&'static str> {
    let verified = proof(header, claims, key).and_then(|proof| fixture::verify(proof, &bundle()));
    verified.err().map(|error| error.inner_reason())
}

#[test]
fn a_good_token_names_its_identity_and_is_spent_once() {
    let principal = fixture::verify(fixture::id_token("job:nightly"), &bundle()).unwrap();
    assert_eq!(principal.identities(), [("prod/billing/nightly".parse().unwrap(), 0)]);
    assert_eq!((principal.instance(), principal.subject()), (Some("88123"), "job:nightly"));
    assert_eq!(principal.claims()["repository_id"], "42");
    let mark = principal.spent_mark().unwrap();
    assert!(mark.expires >= principal.expires_at().plus(LEEWAY));
    assert_ne!(mark.key, principal.digest(), "a respelt signature would be another proof");
}

#[test]
fn a_token_with_one_claim_spoiled_is_refused() {
    let cases: &[(&str, Spoil, &str)] = &[
        ("own issuer", |it| it["iss"] = json!(OURS), "OWN_CREDENTIAL"),
        ("iss with a slash", |it| it["iss"] = json!(format!("{CI}/")), "BAD_ISSUER"),
        ("iss in upper case", |it| it["iss"] = json!("https://CI.example.org"), "BAD_ISSUER"),
        ("iss with a port", |it| it["iss"] = json!("https://ci.example.org:443"), "BAD_ISSUER"),
        ("iss with a user", |it| it["iss"] = json!("https://ci.example.org@evil.host"), "BAD_ISSUER"),
        ("iss as a prefix", |it| it["iss"] = json!("https://ci.example.org.evil.host"), "BAD_ISSUER"),
        ("iss a list", |it| it["iss"] = json!([CI]), "BAD_ISSUER"),
        ("no iss", |it| drop(it.as_object_mut().unwrap().remove("iss")), "BAD_ISSUER"),
        ("foreign aud", |it| it["aud"] = json!("https://other.example.org"), "BAD_AUDIENCE"),
        ("aud with a slash", |it| it["aud"] = json!(format!("{OURS}/")), "BAD_AUDIENCE"),
        ("aud of two", |it| it["aud"] = json!([OURS, "x"]), "BAD_AUDIENCE"),
        ("aud null", |it| it["aud"] = json!(null), "BAD_AUDIENCE"),
        ("no aud", |it| drop(it.as_object_mut().unwrap().remove("aud")), "BAD_AUDIENCE"),
        ("expired", |it| it["exp"] = json!(NOW.seconds() - 30), "EXPIRED"),
        ("no exp", |it| drop(it.as_object_mut().unwrap().remove("exp")), "MALFORMED"),
        ("exp as text", |it| it["exp"] = json!("2030"), "MALFORMED"),
        ("iat ahead", |it| it["iat"] = json!(NOW.seconds() + 31), "NOT_YET_VALID"),
        ("no iat", |it| drop(it.as_object_mut().unwrap().remove("iat")), "MALFORMED"),
        ("nbf ahead", |it| it["nbf"] = json!(NOW.seconds() + 31), "NOT_YET_VALID"),
        ("too long", |it| it["exp"] = json!(NOW.seconds() + 3600), "PROOF_TOO_LONG"),
        ("no sub", |it| drop(it.as_object_mut().unwrap().remove("sub")), "BAD_SUBJECT"),
        ("empty sub", |it| it["sub"] = json!(""), "BAD_SUBJECT"),
        ("sub with a newline", |it| it["sub"] = json!("job:nightly\n"), "BAD_SUBJECT"),
        ("long sub", |it| it["sub"] = json!("a".repeat(1025)), "BAD_SUBJECT"),
        ("twin of sub", |it| it["SUB"] = json!("job:other"), "MALFORMED"),
        ("twin of a used claim", |it| it["Repository_ID"] = json!(42), "MALFORMED"),
        ("no instance", |it| drop(it.as_object_mut().unwrap().remove("run_id")), "BAD_INSTANCE"),
        ("instance a list", |it| it["run_id"] = json!(["88123"]), "BAD_INSTANCE"),
    ];
    for (what, spoil, expected) in cases {
        let mut claims = fixture::claims("job:nightly");
        spoil(&mut claims);
        assert_eq!(inner(&fixture::header(), &claims, &WORLD.ci), Some(*expected), "{what}");
    }
}

#[test]
fn the_leeway_is_thirty_seconds_and_no_more() {
    for (exp, expected) in [(-29, None), (-30, Some("EXPIRED")), (1, None)] {
        let mut claims = fixture::claims("job:nightly");
        claims["iat"] = json!(NOW.seconds() - 100);
        claims["exp"] = json!(NOW.seconds() + exp);
        assert_eq!(inner(&fixture::header(), &claims, &WORLD.ci), expected, "{exp}");
    }
    let mut claims = fixture::claims("job:nightly");
    claims["aud"] = json!([OURS]);
    assert_eq!(inner(&fixture::header(), &claims, &WORLD.ci), None, "a list of one audience");
}

#[test]
fn a_token_with_one_header_spoiled_is_refused() {
    let cases: &[(&str, Spoil, &str)] = &[
        ("alg none", |it| it["alg"] = json!("none"), "ALG_NOT_ALLOWED"),
        ("alg not declared", |it| it["alg"] = json!("RS256"), "ALG_NOT_ALLOWED"),
        ("typ of an access token", |it| it["typ"] = json!("at+jwt"), "TYP"),
        ("typ of a logout token", |it| it["typ"] = json!("logout+jwt"), "TYP"),
        ("no kid", |it| drop(it.as_object_mut().unwrap().remove("kid")), "UNKNOWN_KEY"),
        ("kid a path", |it| it["kid"] = json!("../../dev/null"), "UNKNOWN_KEY"),
        ("crit", |it| it["crit"] = json!(["x"]), "CRIT_UNSUPPORTED"),
        ("x5c", |it| it["x5c"] = json!(["x"]), "EMBEDDED_KEY"),
    ];
    for (what, spoil, expected) in cases {
        let mut header = fixture::header();
        spoil(&mut header);
        assert_eq!(inner(&header, &fixture::claims("job:nightly"), &WORLD.ci), Some(*expected), "{what}");
    }
    let mut header = fixture::header();
    header["jku"] = json!("http://169.254.169.254/");
    assert_eq!(inner(&header, &fixture::claims("job:nightly"), &WORLD.ci), None, "never fetched, counted");
}

#[test]
fn key_urls_are_refused_where_the_issuer_is_declared_so() {
    let mut declared = fixture::declared();
    for issuer in declared.issuers.values_mut() {
        if let crate::bundle::object::IssuerKind::Oidc { refuse_key_urls, .. } = &mut issuer.kind {
            *refuse_key_urls = true;
        }
    }
    let mut header = fixture::header();
    header["jku"] = json!("https://ci.example.org/keys");
    let proof = proof(&header, &fixture::claims("job:nightly"), &WORLD.ci).unwrap();
    let error = fixture::verify(proof, &fixture::bundle(&declared, fixture::PERMIT_ALL)).unwrap_err();
    assert_eq!(error.inner_reason(), "FOREIGN_KEY_URL");
}

#[test]
fn a_replaced_an_unknown_and_a_missing_key_are_told_apart() {
    let other = TokenKey::generate();
    let replaced = proof(&fixture::header(), &fixture::claims("job:nightly"), &other).unwrap();
    let ci: Name = "ci".parse().unwrap();
    let error = fixture::verify(replaced, &bundle()).unwrap_err();
    assert_eq!(error, ProofError::ReplacedKey { issuer: ci.clone() });
    let mut header = fixture::header();
    header["kid"] = json!(other.id);
    let unknown = proof(&header, &fixture::claims("job:nightly"), &other).unwrap();
    let error = fixture::verify(unknown, &bundle()).unwrap_err();
    assert_eq!(error, ProofError::UnknownKey { issuer: ci.clone() });
    let error = fixture::id_token("job:nightly").verify(&bundle(), &KnownKeys::default(), OURS, NOW);
    assert_eq!(error.unwrap_err(), ProofError::KeysUnavailable { issuer: ci });
}

#[test]
fn a_token_of_nobody_declared_is_a_principal_without_identity() {
    for spoil in [
        (|it| it["sub"] = json!("job:nightly2")) as Spoil,
        |it| it["sub"] = json!("JOB:nightly"),
        |it| it["repository_id"] = json!(43),
        |it| drop(it.as_object_mut().unwrap().remove("repository_id")),
    ] {
        let mut claims = fixture::claims("job:nightly");
        spoil(&mut claims);
        let proof = proof(&fixture::header(), &claims, &WORLD.ci).unwrap();
        let principal = fixture::verify(proof, &bundle()).unwrap();
        assert!(principal.identities().is_empty() && principal.operators().is_empty(), "{claims}");
    }
    let alice = fixture::verify(fixture::id_token("person:alice"), &bundle()).unwrap();
    assert_eq!(alice.operators(), [("alice".parse().unwrap(), 0)]);
}

fn by_certificate(chain: Vec<CertificateDer<'static>>) -> Result<Principal, ProofError> {
    fixture::verify(UnverifiedProof::Certificate { chain }, &bundle())
}

const NIGHTLY: &str = "spiffe://example.org/prod/billing/nightly";

#[test]
fn a_good_certificate_names_its_identity_and_may_be_shown_again() {
    let leaf = WORLD.workloads.leaf(vec![fixture::uri(NIGHTLY)], |_| {});
    let principal = by_certificate(vec![leaf]).unwrap();
    assert_eq!(principal.identities(), [("prod/billing/nightly".parse().unwrap(), 1)]);
    assert_eq!((principal.usage(), principal.spent_mark()), (ProofUse::UntilExpiry, None));
    assert_eq!(principal.bound_certificate().unwrap().expires_at, principal.expires_at());
    let digest = bundle().digest();
    assert!(principal.holds_under(digest, NOW) && !principal.holds_under(digest, principal.expires_at()));
}

#[test]
fn a_certificate_with_one_thing_spoiled_is_refused() {
    type SpoilCertificate = fn(&mut rcgen::CertificateParams);
    let cases: &[(&str, SpoilCertificate, &str)] = &[
        ("two URIs", |it| it.subject_alt_names.push(fixture::uri("spiffe://example.org/x")), "BAD_SPIFFE_ID"),
        (
            "a web URI",
            |it| it.subject_alt_names = vec![fixture::uri("https://example.org/x")],
            "BAD_SPIFFE_ID",
        ),
        (
            "no URI",
            |it| it.subject_alt_names = vec![SanType::DnsName("x.example.org".try_into().unwrap())],
            "BAD_SPIFFE_ID",
        ),
        (
            "dots",
            |it| it.subject_alt_names = vec![fixture::uri("spiffe://example.org/a/../b")],
            "BAD_SPIFFE_ID",
        ),
        (
            "foreign domain",
            |it| it.subject_alt_names = vec![fixture::uri("spiffe://example.com/prod/billing/nightly")],
            "FOREIGN_TRUST_DOMAIN",
        ),
        (
            "a server's",
            |it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            "EXTENDED_KEY_USAGE",
        ),
        ("no usage at all", |it| it.extended_key_usages = vec![], "EXTENDED_KEY_USAGE"),
        ("signs certificates", |it| it.key_usages.push(KeyUsagePurpose::KeyCertSign), "KEY_USAGE"),
        ("a CA", |it| it.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained), "LEAF_IS_CA"),
        (
            "expired",
            |it| it.not_after = time::OffsetDateTime::from_unix_timestamp(NOW.seconds() - 1).unwrap(),
            "EXPIRED",
        ),
        (
            "a Daypass credential",
            |it| {
                it.custom_extensions.push(rcgen::CustomExtension::from_oid_content(
                    daypass_verify::task::TASK_EXTENSION_OID,
                    b"{}".to_vec(),
                ))
            },
            "OWN_CREDENTIAL",
        ),
    ];
    for (what, spoil, expected) in cases {
        let leaf = WORLD.workloads.leaf(vec![fixture::uri(NIGHTLY)], spoil);
        assert_eq!(by_certificate(vec![leaf]).unwrap_err().inner_reason(), *expected, "{what}");
    }
    let of_another_ca = Authority::generate("workloads").leaf(vec![fixture::uri(NIGHTLY)], |_| {});
    assert!(by_certificate(vec![of_another_ca]).is_err());
    assert_eq!(by_certificate(vec![]).unwrap_err().inner_reason(), "NO_CERTIFICATE");
    let alone = by_certificate(vec![fixture::self_signed()]);
    assert!(alone.is_err(), "possession alone is no proof");
}

#[test]
fn a_common_name_in_a_certificate_counts_for_nothing() {
    let named = |it: &mut rcgen::CertificateParams| it.distinguished_name.push(DnType::CommonName, NIGHTLY);
    let leaf = WORLD.workloads.leaf(vec![fixture::uri("spiffe://example.org/prod/nobody")], named);
    assert!(by_certificate(vec![leaf]).unwrap().identities().is_empty());
}

fn both(subject: &str, leaf: CertificateDer<'static>) -> Result<Principal, ProofError> {
    let UnverifiedProof::IdToken { token, .. } = fixture::id_token(subject) else { unreachable!() };
    fixture::verify(UnverifiedProof::Both { token, chain: vec![leaf] }, &bundle())
}

#[test]
fn a_token_and_a_certificate_must_lead_to_one_identity() {
    let leaf = |name: &str| WORLD.workloads.leaf(vec![fixture::uri(name)], |_| {});
    let principal = both("job:nightly", leaf(NIGHTLY)).unwrap();
    assert_eq!(principal.identities(), [("prod/billing/nightly".parse().unwrap(), 0)]);
    let twin = both("job:twin", leaf("spiffe://example.org/prod/billing/twin")).unwrap();
    assert_eq!(twin.identities().len(), 1, "the certificate tells two identities apart");
    let error = both("job:nightly", leaf("spiffe://example.org/prod/billing/twin")).unwrap_err();
    assert_eq!(error.inner_reason(), "PROOFS_DISAGREE");
}

#[test]
fn a_certificate_that_nobody_claims_binds_a_token_and_says_nothing_else() {
    let leaf = fixture::self_signed();
    let digest = daypass_verify::ids::Digest::of(&leaf);
    let principal = both("job:nightly", leaf).unwrap();
    assert_eq!(principal.bound_certificate().unwrap().certificate, digest);
    assert_eq!(principal.identities().len(), 1);
}

#[test]
fn a_ca_whose_revocation_lists_are_missing_is_not_believed_and_harms_nobody_else() {
    let mut declared = fixture::declared();
    for issuer in declared.issuers.values_mut() {
        if let IssuerKind::ClientCa { crl_file, .. } = &mut issuer.kind {
            *crl_file = Some("/nowhere.crl".to_owned());
        }
    }
    let bundle = fixture::bundle(&declared, fixture::PERMIT_ALL);
    let leaf = WORLD.workloads.leaf(vec![fixture::uri(NIGHTLY)], |_| {});
    let refused = fixture::verify(UnverifiedProof::Certificate { chain: vec![leaf] }, &bundle);
    assert!(matches!(refused, Err(ProofError::KeysUnavailable { .. })), "{refused:?}");
    assert!(!fixture::bound_principal("job:nightly", &bundle).identities().is_empty());
}

/// The order of P-256 (FIPS 186-5).
const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The same token with the other of the two signatures that fit: `(r, n - s)`.
fn respelt(token: &str) -> String {
    let (input, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let mut borrow = false;
    for at in (0..32).rev() {
        let (less, first) = P256_ORDER[at].overflowing_sub(signature[32 + at]);
        let (less, second) = less.overflowing_sub(u8::from(borrow));
        (signature[32 + at], borrow) = (less, first || second);
    }
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn a_token_with_its_signature_respelt_is_the_same_proof() {
    let token = WORLD.ci.mint(&fixture::header(), &fixture::claims("job:nightly"));
    let other = respelt(&token);
    assert_ne!(token, other);
    let mark = |token: &str| {
        let token = UnverifiedToken::parse(token).unwrap();
        let principal = fixture::verify(UnverifiedProof::IdToken { token, holder: None }, &bundle()).unwrap();
        principal.spent_mark().unwrap().key
    };
    assert_eq!(mark(&token), mark(&other));
}
