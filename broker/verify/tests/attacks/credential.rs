//! Credentials of Daypass as a receiver checks them.

use daypass_verify::credential::{
    CredentialError, Expected, Presenter, Profile, TASK_EXTENSION_OID, verify_certificate, verify_token,
};
use daypass_verify::ids::{CredentialId, Digest};
use daypass_verify::scope::{Audience, Scope};
use daypass_verify::task::TaskDetail;
use daypass_verify::time::{Seconds, UnixMs};
use rcgen::{CertificateParams, CustomExtension, SerialNumber};
use serde_json::{Value, json};

use crate::authorities::{Authorities, NOW, uri};
use crate::minting::{ISSUER, b64, mint};

const ISSUER_URL: &str = "https://broker.example.org";

fn id() -> CredentialId {
    CredentialId::new(NOW, [7; 10])
}

fn detail() -> TaskDetail {
    let scope = Scope {
        audiences: ["https://ledger.example".parse().unwrap()].into(),
        actions: ["invoice:write".parse().unwrap()].into(),
        resources: ["eu/*".parse().unwrap()].into(),
    };
    TaskDetail::new("post-invoices".parse().unwrap(), &scope)
}

fn claims() -> Value {
    json!({
        "iss": ISSUER_URL, "sub": "spiffe://example.org/prod/billing", "aud": "https://ledger.example",
        "client_id": "spiffe://example.org/prod/billing", "jti": id().to_string(),
        "iat": NOW.seconds(), "nbf": NOW.seconds() - 10, "exp": NOW.seconds() + 600,
        "authorization_details": [detail()],
    })
}

fn token(typ: Option<&str>, claims: &Value) -> String {
    let mut header = json!({"alg": "ES256", "kid": "ec"});
    if let Some(typ) = typ {
        header["typ"] = json!(typ);
    }
    mint(header.to_string(), claims.to_string(), |message| ISSUER.es256(message))
}

fn expected(audience: &Audience) -> Expected<'_> {
    Expected {
        profile: Profile::AccessToken,
        issuer: ISSUER_URL,
        audience,
        presenter: Presenter::Bearer,
        now: NOW,
        leeway: Seconds::new(30),
    }
}

fn reason(token: &str, expected: &Expected<'_>) -> &'static str {
    verify_token(token, &ISSUER.keys(), expected).map_or_else(|error| error.inner_reason(), |_| "")
}

/// The claims with some replaced; null takes one away.
fn spoil(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

#[test]
fn a_token_tells_who_may_do_what_until_when() {
    let audience: Audience = "https://ledger.example".parse().unwrap();
    let token = token(Some("at+jwt"), &claims());
    let verified = verify_token(&token, &ISSUER.keys(), &expected(&audience)).unwrap();
    assert_eq!(verified.credential_id, id());
    assert_eq!(verified.subject.as_str(), "spiffe://example.org/prod/billing");
    assert_eq!(verified.task.as_str(), "post-invoices");
    assert_eq!((verified.issued_at, verified.expires_at), (NOW, NOW.plus(Seconds::new(600))));
    assert_eq!((verified.bound, verified.key.as_str()), (None, "ec"));
    let allows =
        |action: &str, resource: &str| verified.allows(&action.parse().unwrap(), &resource.parse().unwrap());
    assert!(allows("invoice:write", "eu/2026/7"));
    assert!(!allows("invoice:write", "us/2026/7") && !allows("invoice:read", "eu/2026/7"));
    assert_eq!(TaskDetail::new(verified.task.clone(), &verified.scope()), detail());
}

#[test]
fn a_token_for_somebody_else_is_refused() {
    let audience: Audience = "https://ledger.example".parse().unwrap();
    let good = expected(&audience);
    let now_s = NOW.seconds();
    let spoiled = [
        (json!({"iss": "https://broker.example.org/"}), "BAD_ISSUER"),
        (json!({"iss": "https://BROKER.example.org"}), "BAD_ISSUER"),
        (json!({"iss": "https://broker.example.org:443"}), "BAD_ISSUER"),
        (json!({"iss": "https://broker.example.org@evil.example"}), "BAD_ISSUER"),
        (json!({"iss": [ISSUER_URL]}), "BAD_ISSUER"),
        (json!({"iss": null}), "BAD_ISSUER"),
        (json!({"aud": "https://ledger.example/"}), "BAD_AUDIENCE"),
        (json!({"aud": "https://LEDGER.example"}), "BAD_AUDIENCE"),
        (json!({"aud": "https://ledger.example.evil"}), "BAD_AUDIENCE"),
        (json!({"aud": "https://ledger"}), "BAD_AUDIENCE"),
        (json!({"aud": ["other"]}), "BAD_AUDIENCE"),
        (json!({"aud": null}), "BAD_AUDIENCE"),
        (json!({"exp": now_s - 30}), "EXPIRED"),
        (json!({"nbf": now_s + 31, "iat": now_s + 31}), "NOT_YET_VALID"),
        (json!({"exp": now_s + 86_401}), "PROOF_TOO_LONG"),
        (json!({"sub": "billing", "client_id": "billing"}), "BAD_SUBJECT"),
        (json!({"client_id": "spiffe://example.org/prod/other"}), "TYP"),
        (json!({"client_id": null}), "TYP"),
        (json!({"jti": null}), "BAD_CREDENTIAL_ID"),
        (json!({"jti": "00000000-0000-4000-8000-000000000000"}), "BAD_CREDENTIAL_ID"),
        (json!({"authorization_details": null}), "BAD_TASK"),
        (json!({"authorization_details": []}), "BAD_TASK"),
        (json!({"authorization_details": detail()}), "BAD_TASK"),
        (json!({"authorization_details": [detail(), detail()]}), "BAD_TASK"),
        (json!({"authorization_details": [{"type": "payment", "identifier": "x"}]}), "BAD_TASK"),
        (json!({"cnf": {}}), "NOT_BOUND"),
        (json!({"cnf": {"jkt": b64([7; 32])}}), "NOT_BOUND"),
        (json!({"cnf": {"x5t#S256": b64([7; 31])}}), "NOT_BOUND"),
        (json!({"cnf": {"x5t#S256": b64([7; 32]), "jkt": "a"}}), "NOT_BOUND"),
        (json!({"cnf": "x5t#S256"}), "NOT_BOUND"),
    ];
    assert_eq!(
        reason(&token(Some("at+jwt"), &spoil(json!({"aud": ["other", "https://ledger.example"]}))), &good),
        ""
    );
    for (changes, refusal) in spoiled {
        assert_eq!(reason(&token(Some("at+jwt"), &spoil(changes.clone())), &good), refusal, "{changes}");
    }
}

#[test]
fn an_access_token_is_no_svid_and_the_other_way_round() {
    let audience: Audience = "https://ledger.example".parse().unwrap();
    let access = expected(&audience);
    let svid = Expected { profile: Profile::JwtSvid, ..access.clone() };
    let table = [
        (Some("at+jwt"), "", "TYP"),
        (Some("application/at+jwt"), "", "TYP"),
        (Some("JWT"), "TYP", ""),
        (None, "TYP", ""),
        (Some("logout+jwt"), "TYP", "TYP"),
        (Some("secevent+jwt"), "TYP", "TYP"),
    ];
    for (typ, as_access, as_svid) in table {
        let token = token(typ, &claims());
        assert_eq!((reason(&token, &access), reason(&token, &svid)), (as_access, as_svid), "{typ:?}");
    }
    let two = token(None, &spoil(json!({"aud": ["https://ledger.example", "other"]})));
    assert_eq!(reason(&two, &svid), "BAD_AUDIENCE");
}

#[test]
fn a_bound_token_is_good_only_beside_its_certificate() {
    let audience: Audience = "https://ledger.example".parse().unwrap();
    let shown = Digest::of(b"certificate");
    let by = |presenter| Expected { presenter, ..expected(&audience) };
    let bound = token(Some("at+jwt"), &spoil(json!({"cnf": {"x5t#S256": b64(shown.as_bytes())}})));
    let verified = verify_token(&bound, &ISSUER.keys(), &by(Presenter::Certificate(shown))).unwrap();
    assert_eq!(verified.bound, Some(shown));
    assert_eq!(reason(&bound, &by(Presenter::Holder)), "");
    assert_eq!(reason(&bound, &by(Presenter::Bearer)), "NOT_BOUND");
    assert_eq!(reason(&bound, &by(Presenter::Certificate(Digest::of(b"other")))), "NOT_BOUND");
    assert_eq!(reason(&token(Some("at+jwt"), &claims()), &by(Presenter::Certificate(shown))), "");
    let also = json!({"cnf": {"x5t#S256": b64(shown.as_bytes()), "jkt": b64([7; 32])}});
    let also = token(Some("at+jwt"), &spoil(also));
    assert_eq!(reason(&also, &by(Presenter::Certificate(shown))), "NOT_BOUND", "a second, unchecked method");
}

fn with_task(params: &mut CertificateParams, value: &[u8]) {
    params.serial_number = Some(SerialNumber::from_slice(id().as_bytes()));
    params.custom_extensions.push(CustomExtension::from_oid_content(TASK_EXTENSION_OID, value.to_vec()));
}

#[test]
fn a_certificate_tells_its_task_and_its_id() {
    let authorities = Authorities::new();
    let json = detail().to_json().unwrap();
    let domain = "example.org".parse().unwrap();
    let check = |change: &dyn Fn(&mut CertificateParams)| {
        let chain = authorities.chain(|params| change(params));
        verify_certificate(&chain, &authorities.anchors(), None, &domain, NOW)
    };
    let verified = check(&|params| with_task(params, json.as_bytes())).unwrap();
    assert_eq!((verified.credential_id, verified.task), (id(), detail()));
    assert_eq!(verified.subject.as_str(), "spiffe://example.org/prod/billing");
    assert_eq!(verified.expires_at, UnixMs::parse("2027-01-02T00:00:00Z").unwrap());

    let twice = json.replacen("{\"type\"", "{\"actions\":[],\"type\"", 1);
    let bad_tasks =
        ["", "{}", "null", twice.as_str(), &format!("{json} x"), &json.replace("task\"", "payment\"")];
    for value in bad_tasks {
        let refused = check(&|params| with_task(params, value.as_bytes()));
        assert_eq!(refused, Err(CredentialError::Task), "{value}");
    }
    assert_eq!(check(&|_| ()), Err(CredentialError::Task));
    for serial in [&[1, 2, 3][..], &[0x7f; 20], &[0x7f; 16]] {
        let refused = check(&|params| {
            with_task(params, json.as_bytes());
            params.serial_number = Some(SerialNumber::from_slice(serial));
        });
        assert_eq!(refused, Err(CredentialError::CredentialId), "{serial:02x?}");
    }
    let foreign = check(&|params| {
        with_task(params, json.as_bytes());
        params.subject_alt_names = vec![uri("spiffe://example.com/prod/billing")];
    });
    assert_eq!(foreign.unwrap_err().inner_reason(), "BAD_TRUST_DOMAIN");
}
