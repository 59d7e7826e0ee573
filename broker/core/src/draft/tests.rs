//! Drafts, signed with real keys and read back by the receivers' own verifier.

use daypass_evidence::entry::{Body, CredentialIssued, Profile};
use daypass_verify::certificate::TrustAnchors;
use daypass_verify::credential::{self, Expected, Presenter, verify_certificate, verify_token};
use daypass_verify::ids::{Digest, RequestId};
use daypass_verify::time::Seconds;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;
use crate::decision::decide;
use crate::fixture::{self, NOW, OURS, WORLD, World};
use crate::proof::{Principal, UnverifiedProof};
use crate::request::{Bind, Form, Request};

fn key(world: &World, profile: Profile) -> SigningKey {
    match profile {
        Profile::AccessToken => SigningKey::token(world.token_key.id.clone(), "ES256"),
        Profile::JwtSvid => SigningKey::token(world.svid_key.id.clone(), "ES256"),
        _ => SigningKey::authority(world.ca_id.clone(), &world.ca.der).unwrap(),
    }
}

fn draft(principal: &Principal, request: &Request) -> Draft {
    let state = fixture::state(&fixture::bundle(&fixture::declared(), fixture::PERMIT_ALL));
    let grant = decide(principal, request, &state, fixture::id(), NOW).unwrap();
    let key = key(&WORLD, grant.profile());
    Draft::new(grant, &key, OURS).unwrap()
}

fn nightly() -> Principal {
    fixture::bound_principal("job:nightly", &fixture::bundle(&fixture::declared(), fixture::PERMIT_ALL))
}

fn issued(draft: &Draft) -> CredentialIssued {
    let Body::CredentialIssued(issued) = &draft.entry().body else { unreachable!() };
    issued.as_ref().clone()
}

fn part(token: &str, at: usize) -> Value {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(at).unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn an_access_token_says_what_the_entry_says_and_its_receiver_accepts_it() {
    let principal = nightly();
    let draft = draft(&principal, &fixture::request("post"));
    let issued = issued(&draft);
    assert_eq!(issued.credential.tbs, Digest::of(draft.tbs()));
    let signature = WORLD.token_key.sign(draft.tbs());
    let Assembled::Token(token) = draft.assemble(&signature).unwrap().1 else { unreachable!() };
    let binding = principal.bound_certificate().unwrap();
    let expected = Expected {
        profile: credential::Profile::AccessToken,
        issuer: OURS,
        audience: &"https://ledger.example.org".parse().unwrap(),
        presenter: Presenter::Certificate(binding.certificate),
        now: NOW,
        leeway: Seconds::new(0),
    };
    let verified = verify_token(&token, &WORLD.token_key.key_set(), &expected).unwrap();
    assert_eq!(verified.scope(), issued.granted.scope);
    assert_eq!((verified.credential_id, verified.expires_at), (fixture::id(), issued.credential.exp_ms));
    assert_eq!(issued.credential.bound, Some(format!("x5t:{}", binding.certificate)));
    assert_eq!(part(&token, 0), json!({"alg": "ES256", "kid": WORLD.token_key.id, "typ": "at+jwt"}));
    let claims = part(&token, 1);
    assert_eq!((&claims["tenant"], &claims["run"]), (&json!("example"), &json!("88123")));
    assert_eq!(
        (&claims["aud"], &claims["client_id"]),
        (&json!("https://ledger.example.org"), &claims["sub"])
    );
}

#[test]
fn a_jwt_svid_is_signed_by_its_own_key_and_bound_to_nothing() {
    let form = Form::Token { profile: Some(Profile::JwtSvid), bind: Bind::Auto };
    let audiences = ["mesh".parse().unwrap()].into();
    let draft = draft(&nightly(), &Request { form, audiences, ..fixture::request("mesh") });
    assert_eq!(draft.key(), &WORLD.svid_key.id);
    assert_eq!(issued(&draft).credential.bound, None);
    let signature = WORLD.svid_key.sign(draft.tbs());
    let Assembled::Token(token) = draft.assemble(&signature).unwrap().1 else { unreachable!() };
    assert_eq!(part(&token, 0), json!({"alg": "ES256", "kid": WORLD.svid_key.id, "typ": "JWT"}));
    let claims = part(&token, 1);
    assert_eq!((&claims["aud"], claims.get("cnf")), (&json!("mesh"), None));
    assert_eq!(claims["sub"], json!("spiffe://example.org/prod/billing/nightly"));
}

fn certificate(request: &Request) -> (CredentialIssued, Vec<u8>) {
    let draft = draft(&nightly(), request);
    let issued = issued(&draft);
    assert_eq!(issued.credential.tbs, Digest::of(draft.tbs()));
    let signature = WORLD.ca.sign(draft.tbs());
    let Assembled::Certificate(der) = draft.assemble(&signature).unwrap().1 else { unreachable!() };
    (issued, der)
}

#[test]
fn an_x509_svid_has_one_uri_no_common_name_and_its_receiver_accepts_it() {
    let (issued, der) = certificate(&fixture::certificate_request("mesh"));
    let anchors = TrustAnchors::new(vec![WORLD.ca.der.clone()]).unwrap();
    let chain = [CertificateDer::from(der.as_slice())];
    let verified = verify_certificate(&chain, &anchors, None, &"example.org".parse().unwrap(), NOW).unwrap();
    assert_eq!((verified.credential_id, &verified.subject), (fixture::id(), &issued.credential.subject));
    assert_eq!(verified.expires_at, issued.credential.exp_ms);
    assert_eq!(verified.leaf.not_before(), issued.credential.nbf_ms);
    assert_eq!(verified.leaf.dns_sans(), ["nightly.example.org"]);
    assert_eq!(Some(verified.leaf.spki_digest()), issued.credential.holder_key);
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    assert!(parsed.subject().iter().next().is_none());
    assert!(parsed.subject_alternative_name().unwrap().unwrap().critical);
    assert!(parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
    assert!(parsed.iter_extensions().any(|it| it.oid.to_id_string() == "2.5.29.56"), "noRevAvail");
}

#[test]
fn a_common_name_certificate_is_for_clients_alone_and_can_be_revoked_where_a_crl_reaches() {
    let (_, der) = certificate(&fixture::certificate_request("db"));
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(parsed.subject().to_string(), "CN=billing_nightly");
    assert!(!parsed.extended_key_usage().unwrap().unwrap().value.server_auth);
    assert!(parsed.iter_extensions().all(|it| it.oid.to_id_string() != "2.5.29.56"), "noRevAvail");
}

#[test]
fn a_draft_is_made_for_the_key_that_was_decided_on_and_no_other() {
    let bundle = fixture::bundle(&fixture::declared(), fixture::PERMIT_ALL);
    let state = fixture::state(&bundle);
    let decided = || decide(&nightly(), &fixture::request("post"), &state, fixture::id(), NOW).unwrap();
    let other = SigningKey::token(WORLD.svid_key.id.clone(), "ES256");
    assert!(matches!(Draft::new(decided(), &other, OURS), Err(DraftError::OtherKey { .. })));
    let of_ca = SigningKey::authority(WORLD.token_key.id.clone(), &WORLD.ca.der).unwrap();
    assert!(matches!(Draft::new(decided(), &of_ca, OURS), Err(DraftError::WrongKey(_))));
    assert!(SigningKey::authority(WORLD.ca_id.clone(), &fixture::self_signed()).is_err());
}

#[test]
fn a_signature_of_another_form_is_refused() {
    for (request, bad) in [
        (fixture::request("post"), vec![0; 63]),
        (fixture::request("post"), vec![0; 72]),
        (fixture::certificate_request("mesh"), vec![0; 64]),
        (fixture::certificate_request("mesh"), vec![]),
    ] {
        assert!(draft(&nightly(), &request).assemble(&bad).is_err());
    }
}

#[test]
fn a_proof_that_buys_one_credential_is_spent_and_so_is_a_callers_request_id() {
    let principal = nightly();
    let kinds = |draft: &Draft| draft.marks().iter().map(|mark| mark.kind).collect::<Vec<_>>();
    assert_eq!(kinds(&draft(&principal, &fixture::request("post"))), [MarkKind::Proof]);
    let id: RequestId = "11111111-1111-4111-8111-111111111111".parse().unwrap();
    let repeated = Request { id, id_is_callers: true, ..fixture::request("post") };
    assert_eq!(kinds(&draft(&principal, &repeated)), [MarkKind::Proof, MarkKind::Request]);
    let bundle = fixture::bundle(&fixture::declared(), fixture::PERMIT_ALL);
    let leaf = WORLD.workloads.leaf(vec![fixture::uri("spiffe://example.org/prod/billing/nightly")], |_| {});
    let shown_again = UnverifiedProof::Certificate { chain: vec![leaf] };
    let by_certificate = fixture::verify(shown_again, &bundle).unwrap();
    assert!(draft(&by_certificate, &fixture::request("post")).marks().is_empty());
}

#[test]
fn the_entry_can_be_written_and_the_same_request_gives_the_same_bytes() {
    let principal = nightly();
    let (one, two) =
        (draft(&principal, &fixture::request("post")), draft(&principal, &fixture::request("post")));
    assert_eq!((one.tbs(), one.entry()), (two.tbs(), two.entry()));
    let bytes = one.entry().encode(NOW, &"example.org".parse().unwrap(), &"b1".parse().unwrap()).unwrap();
    assert!(bytes.len() < 2048, "{}", bytes.len());
}
