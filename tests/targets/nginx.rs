//! nginx: client certificates with a revocation list, its own certificate by the agent, and `auth_request` against the agent
//! for applications that know neither.

mod ground;

use std::time::{Duration, Instant};

use daypass_evidence::entry::{Body, Observed};
use daypass_proto::v1::RevocationReason;
use daypass_sdk::{Binding, ClientCertificate, Config, IssueRequest, Kind, Secret};
use daypass_tests::harness::{CI, NIGHTLY, eventually};
use daypass_verify::ids::CredentialId;
use secrecy::ExposeSecret as _;

use super::table::{self, Row};
use ground::Ground;

/// What is signed within 5 s and fetched as often, or each second.
const WITHIN: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_certificate_opens_what_it_is_for_until_it_is_on_the_list() {
    let ground = Ground::start().await;
    let own = ground.certificate("read-reports").await;
    let (cert, key) = (own.join("tls.crt"), own.join("tls.key"));
    let with = |cert: &std::path::Path, key: &std::path::Path| {
        ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()].map(String::from).to_vec()
    };
    let said = ground.curl(ground.tls, "/reports", &with(&cert, &key)).await;
    assert_eq!(
        (said.0, said.1.as_str()),
        (200, "the reports for CN=billing-nightly\n"),
        "{}",
        ground.errors()
    );
    assert_eq!(ground.curl(ground.tls, "/reports", &[]).await.0, 400, "without a certificate");
    let (theirs, their_key) = ground.deployment.agent_proof("stranger");
    assert_eq!(ground.curl(ground.tls, "/reports", &with(&theirs, &their_key)).await.0, 400, "of another CA");
    let other = ground.certificate("ledger-db").await;
    let said =
        ground.curl(ground.tls, "/reports", &with(&other.join("tls.crt"), &other.join("tls.key"))).await;
    assert_eq!(said.0, 403, "what is for another target has another name: {}", said.1);

    // A new certificate of the server is served without a restart.
    let served = ground.served().await;
    ground.deployment.agent_proof_of("nginx", ground::IDENTITY);
    eventually("the next certificate is served", || async { ground.served().await != served }).await;
    assert_eq!(ground.curl(ground.tls, "/reports", &with(&cert, &key)).await.0, 200);

    let open = ground.browser(&own);
    assert_eq!(ground.ask(&open).await, Some(200));
    let id = std::fs::read_to_string(own.join("credential.json")).unwrap();
    let id: serde_json::Value = serde_json::from_str(&id).unwrap();
    let client = ground.deployment.sdk();
    let id = id["id"].as_str().unwrap().parse().unwrap();
    client.revoke(id, RevocationReason::KeyCompromise, "a laptop was lost").await.unwrap();
    let revoked_at = Instant::now();
    let mut seconds = [None, None];
    while seconds.iter().any(Option::is_none) {
        assert!(revoked_at.elapsed() < WITHIN, "{seconds:?}: {}", ground.errors());
        ground.refresh_list().await;
        let new = ground.curl(ground.tls, "/reports", &with(&cert, &key)).await.0;
        for (refused, seconds) in
            [(new == 400), ground.ask(&open).await == Some(400)].into_iter().zip(&mut seconds)
        {
            if refused && seconds.is_none() {
                *seconds = Some(revoked_at.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    table::seen(&Row {
        target: "nginx, client certificates and revocation list",
        version: &ground.version,
        end: "revoked",
        new: "refused (400)",
        open: "refused at its next request",
        seconds,
    });
}

#[tokio::test]
async fn a_token_passes_where_the_agent_says_so_until_it_is_revoked() {
    let mut ground = Ground::start().await;
    let client = ground.deployment.sdk();
    let ledger = "https://ledger.example.org".parse().unwrap();
    let mut request = IssueRequest::token("read-invoices".parse().unwrap());
    request.kind = Kind::Token { profile: None, binding: Binding::Bearer };
    request.scope.audiences = [ledger].into();
    let credential = client.issue(request).await.unwrap();
    let Secret::Token { value, .. } = &credential.secret else { panic!("a token") };
    let bearer = |token: &str| vec!["-H".to_owned(), format!("authorization: Bearer {token}")];
    let good = bearer(value.expose_secret());

    let spoofed: Vec<String> = [good.clone(), vec!["-H".into(), "x-identity: root".into()]].concat();
    let said = ground.curl(ground.plain, "/invoices", &spoofed).await;
    let expected = format!("spiffe://example.org/{NIGHTLY} -\n");
    assert_eq!((said.0, said.1), (200, expected), "{}{}", ground.errors(), ground.agent().said());
    let foreign = ground.deployment.organisation.token(CI, NIGHTLY).unwrap();
    let spoiled = value.expose_secret().replace('.', ".A");
    for (what, path, arguments, expected) in [
        ("nothing", "/invoices", vec![], 401),
        ("another issuer's token", "/invoices", bearer(&foreign), 401),
        ("a spoiled one", "/invoices", bearer(&spoiled), 401),
        ("two", "/invoices", [good.clone(), good.clone()].concat(), 400),
        ("a password", "/invoices", vec!["-u".into(), "a:b".into()], 401),
        ("one that may only read", "/post", good.clone(), 403),
        ("one for another task", "/task", good.clone(), 403),
    ] {
        let said = ground.curl(ground.plain, path, &arguments).await;
        assert_eq!(said.0, expected, "{what}: {}", said.1);
    }

    let (cert, key) = ground.deployment.agent_proof("caller");
    let proof = ClientCertificate::Files { chain: cert.clone(), key: key.clone() };
    let holder = Config { certificate: Some(proof), ..ground.deployment.sdk_config() };
    let holder = daypass_sdk::Client::new(holder).unwrap();
    let bound = holder.issue(IssueRequest::token("post-invoices".parse().unwrap())).await.unwrap();
    let Secret::Token { value: bound, .. } = &bound.secret else { panic!("a token") };
    let bound = bearer(bound.expose_secret());
    let shown = |cert: &std::path::Path, key: &std::path::Path| {
        let shown = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()].map(String::from);
        [bound.clone(), shown.to_vec()].concat()
    };
    let said = ground.curl(ground.bound, "/post", &shown(&cert, &key)).await;
    assert_eq!(said.0, 200, "{}{}", said.1, ground.agent().said());
    let (other, other_key) = ground.deployment.agent_proof("thief");
    assert_eq!(
        ground.curl(ground.bound, "/post", &shown(&other, &other_key)).await.0,
        401,
        "by another's key"
    );
    assert_eq!(ground.curl(ground.bound, "/post", &bound).await.0, 401, "by nobody's key");
    assert_eq!(ground.curl(ground.plain, "/post", &bound).await.0, 401);

    let open = ground.browser(&ground.certificate("read-reports").await);
    let url = format!("http://127.0.0.1:{}/invoices", ground.plain);
    let ask =
        async || open.get(&url).bearer_auth(value.expose_secret()).send().await.unwrap().status().as_u16();
    assert_eq!(ask().await, 200);
    // The first one of all, and this one.
    let mut passed = 2;
    client.revoke(credential.id, RevocationReason::KeyCompromise, "a laptop was lost").await.unwrap();
    let revoked_at = Instant::now();
    let mut seconds = [None, None];
    while seconds.iter().any(Option::is_none) {
        assert!(revoked_at.elapsed() < WITHIN, "it passes {WITHIN:?} after it was revoked: {seconds:?}");
        let new = ground.curl(ground.plain, "/invoices", &good).await.0;
        for (status, seconds) in [new, ask().await].into_iter().zip(&mut seconds) {
            passed += u64::from(status == 200);
            if status == 401 && seconds.is_none() {
                *seconds = Some(revoked_at.elapsed().as_secs_f64());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    table::seen(&Row {
        target: "nginx, auth_request to the agent",
        version: &ground.version,
        end: "revoked",
        new: "refused (401)",
        open: "refused at its next request",
        seconds,
    });

    ground.stop_agent().await;
    reported_is(&ground, credential.id, passed).await;
    assert_eq!(ground.curl(ground.plain, "/invoices", &good).await.0, 500, "who cannot ask lets nobody pass");
}

/// What the agent told of a credential: how often it was used and refused, and for what.
async fn reported_is(ground: &Ground, credential: CredentialId, passed: u64) {
    let entries = ground.deployment.entries().await;
    let (index, _) = entries.iter().find(|(_, entry)| entry.envelope.id == credential).unwrap();
    let told = entries.iter().filter_map(|(_, entry)| match &entry.body {
        Body::AccessObserved(it) if it.credential == Some(*index) => Some(it),
        _ => None,
    });
    let (mut used, mut denied, mut ended) = (0, 0, 0);
    for it in told {
        assert_eq!((it.target.as_str(), it.method.as_str()), ("ledger", "verifier"), "{it:?}");
        match (it.what, it.detail.as_deref()) {
            (Observed::Used, None) => {
                assert_eq!(it.actions.iter().map(|it| it.as_str()).collect::<Vec<_>>(), ["invoice:read"]);
                used += it.count;
            }
            (Observed::Refused, Some("access_denied")) => denied += it.count,
            (Observed::Refused, Some("credential_ended")) => ended += it.count,
            _ => panic!("{it:?}"),
        }
    }
    assert_eq!((used, denied), (passed, 2));
    assert!(ended >= 2, "{ended}");
}
