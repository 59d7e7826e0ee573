//! The revocation feed as a receiver reads it.

use daypass_verify::ids::{CredentialId, KeyId};
use daypass_verify::revocations::{
    CUT_OFFS_MAX, CutOffs, FeedError, IDS_MAX, Known, LEN_MAX, LIFE, Revocations, Revoked, TYP,
};
use daypass_verify::time::{Seconds, UnixMs};
use serde_json::{Value, json};

use crate::authorities::NOW;
use crate::minting::{ISSUER, b64, key_set, mint};

const ISSUER_URL: &str = "https://broker.example.org";

fn id(last: u8) -> CredentialId {
    CredentialId::new(NOW, [0, 0, 0, 0, 0, 0, 0, 0, 0, last])
}

fn claims() -> Value {
    json!({
        "iss": ISSUER_URL, "iat": NOW.seconds(), "exp": NOW.seconds() + 300, "sequence": 7, "complete": true,
        "revoked": [id(1), id(2)],
        "before_ms": {
            "identities": {"spiffe://example.org/prod/x": NOW.get()}, "issuers": {"ci": NOW.get()}, "keys": {},
        },
    })
}

fn feed(claims: &Value) -> String {
    let header = json!({"alg": "ES256", "kid": "ec", "typ": TYP});
    mint(header.to_string(), claims.to_string(), |message| ISSUER.es256(message))
}

fn open(compact: &str, sequence: Option<u64>, now: UnixMs) -> Result<Revocations, FeedError> {
    let keys = ISSUER.keys();
    let known = Known { issuer: ISSUER_URL, keys: &keys, sequence, now, leeway: Seconds::new(30) };
    Revocations::open(compact, &known)
}

fn reason(error: &FeedError) -> String {
    match error {
        FeedError::Token(error) => error.inner_reason().into(),
        FeedError::Member(member, _) => (*member).into(),
        FeedError::TooMany => "TOO_MANY".into(),
        FeedError::WentBack { .. } => "WENT_BACK".into(),
    }
}

#[test]
fn a_feed_is_read_as_it_was_written() {
    let kid = KeyId::from_thumbprint([3; 32]);
    let cut_offs = CutOffs {
        identities: [("spiffe://example.org/prod/x".parse().unwrap(), NOW)].into(),
        issuers: [("ci".parse().unwrap(), NOW)].into(),
        keys: [(kid.clone(), daypass_verify::revocations::ALWAYS)].into(),
    };
    for revoked in [Revoked::new(vec![id(2), id(1)], cut_offs), Revoked::new(Vec::new(), CutOffs::default())]
    {
        let written = Revocations::new(revoked, 42, NOW);
        let mut jwk = ISSUER.ec_jwk();
        jwk["kid"] = json!(kid);
        let input = written.signing_input(ISSUER_URL, "ES256", &kid);
        let compact = format!("{input}.{}", b64(ISSUER.es256(input.as_bytes())));
        let keys = key_set(&[jwk]);
        let known =
            Known { issuer: ISSUER_URL, keys: &keys, sequence: Some(42), now: NOW, leeway: Seconds::new(0) };
        assert_eq!(Revocations::open(&compact, &known), Ok(written));
    }
}

#[test]
fn a_feed_with_one_thing_spoiled_is_refused() {
    assert!(open(&feed(&claims()), Some(7), NOW).is_ok());
    let cases: [(&str, Value, &str); 22] = [
        ("/iss", json!("https://broker.example.org/"), "BAD_ISSUER"),
        ("/iss", json!(7), "BAD_ISSUER"),
        ("/exp", json!(NOW.seconds() - 40), "EXPIRED"),
        ("/exp", json!(NOW.seconds() + 301), "PROOF_TOO_LONG"),
        ("/exp", json!("1"), "MALFORMED"),
        ("/iat", json!(NOW.seconds() + 60), "NOT_YET_VALID"),
        ("/iat", Value::Null, "MALFORMED"),
        ("/sequence", json!(6), "WENT_BACK"),
        ("/sequence", json!(-7), "sequence"),
        ("/sequence", json!("7"), "sequence"),
        ("/complete", json!("true"), "complete"),
        ("/revoked", json!({}), "revoked"),
        ("/revoked", json!([id(2), id(1)]), "revoked"),
        ("/revoked", json!([id(1), id(1)]), "revoked"),
        ("/revoked", json!([id(1).to_string().to_uppercase()]), "revoked"),
        ("/revoked", json!(["00000000-0000-4000-8000-000000000000"]), "revoked"),
        ("/revoked", json!([1]), "revoked"),
        ("/before_ms", json!([]), "before_ms"),
        ("/before_ms/keys", Value::Null, "keys"),
        ("/before_ms/keys", json!({"short": 1}), "keys"),
        ("/before_ms/issuers", json!({"CI": 1}), "issuers"),
        ("/before_ms/identities", json!({"spiffe://example.org/x": 1.5}), "identities"),
    ];
    for (at, value, expected) in cases {
        let mut spoiled = claims();
        *spoiled.pointer_mut(at).unwrap() = value;
        let error = open(&feed(&spoiled), Some(7), NOW).expect_err(at);
        assert_eq!(reason(&error), expected, "{at}: {error}");
    }
    for missing in ["iss", "iat", "exp", "sequence", "complete", "revoked", "before_ms"] {
        let mut spoiled = claims();
        spoiled.as_object_mut().unwrap().remove(missing);
        assert!(open(&feed(&spoiled), None, NOW).is_err(), "{missing}");
    }
}

#[test]
fn no_other_token_of_the_broker_is_a_feed_and_no_key_but_its_own_signs_one() {
    for (header, expected) in [
        (json!({"alg": "ES256", "kid": "ec", "typ": "at+jwt"}), "TYP"),
        (json!({"alg": "ES256", "kid": "ec"}), "TYP"),
        (json!({"alg": "ES256", "kid": "other", "typ": TYP}), "UNKNOWN_KEY"),
        (json!({"alg": "none", "kid": "ec", "typ": TYP}), "ALG_NOT_ALLOWED"),
        (json!({"alg": "EdDSA", "kid": "ec", "typ": TYP}), "KEY_ALG_MISMATCH"),
    ] {
        let compact = mint(header.to_string(), claims().to_string(), |message| ISSUER.es256(message));
        assert_eq!(open(&compact, None, NOW).map_err(|error| reason(&error)), Err(expected.into()));
    }
    let mut other = feed(&claims());
    other.truncate(other.len() - 86);
    other.push_str(&b64([7; 64]));
    assert_eq!(open(&other, None, NOW).map_err(|error| reason(&error)), Err("BAD_SIGNATURE".into()));
}

#[test]
fn a_feed_is_good_for_its_life_and_tells_its_age() {
    let compact = feed(&claims());
    let last = NOW.plus(LIFE).plus(Seconds::new(30)).plus_millis(-1);
    assert_eq!(open(&compact, None, last).unwrap().age_ms(last), 329_999);
    assert_eq!(
        open(&compact, None, NOW.minus(Seconds::new(5))).unwrap().age_ms(NOW.minus(Seconds::new(5))),
        0
    );
    assert!(open(&compact, None, last.plus_millis(1)).is_err());
    // The same feed again, or a later one, goes on; an earlier one does not.
    assert!(open(&compact, Some(6), NOW).is_ok());
    assert!(open(&compact, Some(8), NOW).is_err());
}

#[test]
fn a_feed_is_bounded_and_its_greatest_size_is_read() {
    let ids = |count: usize| -> Vec<CredentialId> {
        (0..count).map(|n| CredentialId::new(NOW.plus_millis(i64::try_from(n).unwrap()), [0; 10])).collect()
    };
    let identities = |count: usize| -> Value {
        (0..count)
            .map(|n| (format!("spiffe://example.org/{n}"), json!(1)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut full = claims();
    full["revoked"] = json!(ids(IDS_MAX));
    full["before_ms"]["identities"] = identities(CUT_OFFS_MAX);
    let compact = feed(&full);
    assert!(compact.len() < LEN_MAX);
    assert_eq!(open(&compact, None, NOW).unwrap().revoked.ids().len(), IDS_MAX);

    full["revoked"] = json!(ids(IDS_MAX + 1));
    assert_eq!(open(&feed(&full), None, NOW), Err(FeedError::TooMany));
    let mut over = claims();
    over["before_ms"]["identities"] = identities(CUT_OFFS_MAX + 1);
    assert_eq!(open(&feed(&over), None, NOW), Err(FeedError::TooMany));
    let mut deep = claims();
    deep["more"] = json!({"a": {"b": {"c": 1}}});
    assert!(open(&feed(&deep), None, NOW).is_err());
    assert!(open(&"a".repeat(LEN_MAX + 1), None, NOW).is_err());
}
