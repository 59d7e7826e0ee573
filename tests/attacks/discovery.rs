//! Issuers that answer badly: each costs its own callers and nobody else, and is told by an alarm.

use std::time::Duration;

use daypass_broker::dev::issuer::{Behaviour, Connection, DevIssuer, Endpoint};
use daypass_broker::dev::organisation::{Organisation, sample};
use daypass_core::bundle::SourceFile;
use daypass_evidence::entry::{AlarmState, Body};
use daypass_tests::harness::{CI, Deployment, NIGHTLY, issue, task};
use serde_json::{Value, json};
use tonic::Code;

type Spoil = fn(&DevIssuer);

fn discovery(issuer: &DevIssuer, document: Value) {
    issuer.behave(Endpoint::Discovery, Behaviour::body(document.to_string()));
}

fn key_set(issuer: &DevIssuer, text: impl ToString) {
    issuer.behave(Endpoint::Jwks, Behaviour::body(text.to_string()));
}

fn jwks_at(issuer: &DevIssuer, jwks_uri: &str) {
    discovery(issuer, json!({ "issuer": issuer.url(), "jwks_uri": jwks_uri }));
}

/// The issuer's one key, changed.
fn key(issuer: &DevIssuer, change: impl FnOnce(&mut Value)) -> Value {
    let mut key = issuer.jwks()["keys"][0].clone();
    change(&mut key);
    key
}

const UNBELIEVED: &[(&str, Spoil)] = &[
    ("redirects-discovery", |it| {
        it.behave(Endpoint::Discovery, Behaviour::redirect(302, format!("{}/jwks", it.url())))
    }),
    ("redirects-keys", |it| {
        it.behave(Endpoint::Jwks, Behaviour::redirect(307, format!("{}/jwks", it.url())))
    }),
    ("is-another-issuer", |it| {
        discovery(it, json!({ "issuer": format!("{}/", it.url()), "jwks_uri": format!("{}/jwks", it.url()) }))
    }),
    ("is-an-issuer-in-capitals", |it| {
        discovery(it, json!({ "issuer": it.url().to_uppercase(), "jwks_uri": format!("{}/jwks", it.url()) }))
    }),
    ("keys-without-tls", |it| jwks_at(it, &format!("{}/jwks", it.url().replace("https", "http")))),
    ("keys-in-a-file", |it| jwks_at(it, "file:///etc/hostname")),
    ("keys-with-a-user", |it| jwks_at(it, &format!("{}/jwks", it.url().replace("https://", "https://me@")))),
    ("keys-at-port-22", |it| jwks_at(it, "https://127.0.0.1:22/jwks")),
    ("fails", |it| it.behave(Endpoint::Jwks, Behaviour::status(500))),
    ("no-keys", |it| key_set(it, r#"{"keys":[]}"#)),
    ("a-page-for-people", |it| key_set(it, "<html>sign in</html>")),
    ("a-list", |it| key_set(it, "[]")),
    ("null", |it| key_set(it, "null")),
    ("no-number", |it| key_set(it, r#"{"keys":NaN}"#)),
    ("two-keys-of-one-name", |it| key_set(it, json!({ "keys": [key(it, |_| {}), key(it, |_| {})] }))),
    ("a-key-and-a-secret-of-one-name", |it| {
        let secret = key(it, |key| {
            key["kty"] = "oct".into();
            key["k"] = "AAAA".into();
        });
        key_set(it, json!({ "keys": [key(it, |_| {}), secret] }));
    }),
    ("65-keys", |it| {
        let keys: Vec<Value> = (0..65).map(|n| key(it, |key| key["kid"] = n.to_string().into())).collect();
        key_set(it, json!({ "keys": keys }));
    }),
    ("for-encryption", |it| key_set(it, json!({ "keys": [key(it, |key| key["use"] = "enc".into())] }))),
    ("for-signing-alone", |it| {
        let signing = key(it, |key| {
            key.as_object_mut().unwrap().remove("use");
            key["key_ops"] = json!(["sign"]);
        });
        key_set(it, json!({ "keys": [signing] }));
    }),
    ("private", |it| key_set(it, json!({ "keys": [key(it, |key| key["d"] = "AAAA".into())] }))),
    ("too-long", |it| key_set(it, format!("{}{}", " ".repeat(2 << 20), it.jwks()))),
    ("expired-certificate", |it| it.connect(Connection::ExpiredCertificate)),
    ("certificate-of-another-host", |it| it.connect(Connection::OtherHost)),
    ("certificate-of-another-ca", |it| it.connect(Connection::OtherCa)),
    ("hangs-up", |it| it.connect(Connection::Closed)),
    ("says-nothing", |it| it.connect(Connection::SilentHandshake)),
    ("headers-without-end", |it| it.connect(Connection::EndlessHeaders)),
    ("a-byte-a-second", |it| it.behave(Endpoint::Jwks, Behaviour::Drip(Duration::from_secs(1)))),
];

const BELIEVED: &[(&str, Spoil)] = &[
    ("honest", |_| {}),
    ("a-second-late", |it| it.behave(Endpoint::Jwks, Behaviour::Late(Duration::from_secs(1)))),
    ("keys-that-nobody-reads", |it| {
        let rsa = json!({ "kty": "RSA", "kid": "small", "e": "AQAB", "n": "AQAB" });
        let secret = json!({ "kty": "oct", "kid": "secret", "k": "AAAA" });
        key_set(it, json!({ "keys": [rsa, secret, key(it, |_| {})] }));
    }),
    ("keys-for-a-year", |it| {
        it.behave(Endpoint::Jwks, Behaviour::Headers(vec![("cache-control", "max-age=31536000".into())]))
    }),
    ("keys-for-no-time", |it| {
        it.behave(Endpoint::Jwks, Behaviour::Headers(vec![("cache-control", "max-age=0".into())]))
    }),
];

/// The sample with an issuer for each row, and a workload that only it vouches for.
fn files() -> Vec<SourceFile> {
    let names = || UNBELIEVED.iter().chain(BELIEVED).map(|(name, _)| name);
    let issuers = names().map(|name| {
        format!(
            "[issuer.{name}]\nkind = \"oidc\"\nurl = \"https://{name}.example.org\"\nenvironment = \"prod\"\n\
             algs = [\"ES256\"]\nproof_ttl_max = \"10m\"\nreplay = \"once\"\n"
        )
    });
    let identities = names().map(|name| {
        format!(
            "[identity.\"prod/odd/{name}\"]\nclass = \"service\"\nprivilege = \"low\"\npurpose = \"tests its issuer\"\n\
             business_owner = \"finance\"\ntechnical_owner = \"platform\"\nenvironment = \"prod\"\n\
             expires = 2027-11-30\nreview_every = \"90d\"\ntasks = [\"post-invoices\"]\n\
             proofs = [{{ issuer = \"{name}\", subject = \"odd\" }}]\n"
        )
    });
    let mut files = sample();
    files.push(SourceFile { path: "issuers/odd.toml".into(), text: issuers.collect::<Vec<_>>().join("\n") });
    files.push(SourceFile {
        path: "identities/odd.toml".into(),
        text: identities.collect::<Vec<_>>().join("\n"),
    });
    files
}

fn token(organisation: &Organisation, name: &str) -> String {
    organisation.token(name, &format!("prod/odd/{name}")).unwrap()
}

#[tokio::test]
async fn an_issuer_that_answers_badly_costs_only_its_own_callers() {
    let prepare = |organisation: &Organisation| {
        for (name, spoil) in UNBELIEVED.iter().chain(BELIEVED) {
            spoil(organisation.issuer(name).unwrap());
        }
    };
    let deployment = Deployment::start_with(files(), prepare).await;
    issue(&deployment.job().await, task("post-invoices")).await.expect("other issuers are fine at once");
    for (name, _) in BELIEVED {
        daypass_tests::harness::eventually(name, || async { deployment.knows(name) }).await;
        let refused =
            issue(&deployment.bound(token(&deployment.organisation, name)).await, task("post-invoices"))
                .await;
        assert_eq!(refused.unwrap_err().reason, "NOT_ALLOWED", "{name}: proven, and permitted nothing");
    }
    for (name, _) in UNBELIEVED {
        let issuer = format!("issuer `{name}`");
        let raised = |entry: &daypass_evidence::entry::Entry| match &entry.body {
            Body::Alarm(alarm) if alarm.state == AlarmState::Raised => {
                alarm.detail.as_ref().filter(|detail| detail.contains(&issuer)).map(drop)
            }
            _ => None,
        };
        deployment.entry(name, raised).await;
        let refused =
            issue(&deployment.bound(token(&deployment.organisation, name)).await, task("post-invoices"))
                .await;
        let refused = refused.unwrap_err();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::Unavailable, "ISSUER_UNAVAILABLE"),
            "{name}"
        );
    }
    issue(&deployment.job().await, task("post-invoices")).await.expect("other issuers are fine to the end");
}

#[tokio::test]
async fn good_keys_stay_while_their_issuer_is_down_and_a_new_one_is_asked_for_once() {
    let deployment = Deployment::start().await;
    let ci = deployment.organisation.issuer(CI).unwrap();
    ci.connect(Connection::Closed);
    issue(&deployment.job().await, task("post-invoices")).await.expect("its keys are known");
    ci.connect(Connection::Honest);
    ci.rotate(daypass_broker::dev::issuer::Rotation::Abrupt).unwrap();
    issue(&deployment.job().await, task("post-invoices")).await.expect("a key that is not known is fetched");

    let before = ci.requests(Endpoint::Jwks);
    let forge = deployment.forge(CI, NIGHTLY);
    for n in 0..20 {
        let token = forge.with(|header, _| drop(header.insert("kid".into(), format!("unknown-{n}").into())));
        let refused = issue(&deployment.bound(token).await, task("post-invoices")).await.unwrap_err();
        assert_eq!(refused.reason, "PROOF_REFUSED");
    }
    assert!(ci.requests(Endpoint::Jwks) <= before + 1, "a flood of unknown keys is not passed on");
}
