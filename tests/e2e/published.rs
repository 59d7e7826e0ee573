//! What is published of the keys, and for how long copies of it may be used.

use std::collections::BTreeSet;

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::organisation::sample;
use daypass_broker::serve::Running;
use daypass_core::bundle::SourceFile;
use daypass_core::rotation::{Lifetimes, Order};
use daypass_evidence::entry::KeyUse;
use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_tests::harness::{Deployment, claims_of, issue, nightly, run, task, token_of};
use daypass_verify::time::{Seconds, UnixMs};
use serde_json::Value;

use crate::faults::report::stood;

/// Keys of ten minutes, which are known for six and a half beforehand: copies may be used for five.
const TEN_MINUTES: Lifetimes =
    Lifetimes { token: Seconds::new(600), ca: Seconds::new(900), ahead: Seconds::new(390) };

/// How far the clock is set at once.
const STEP_S: i64 = 45;
const STEPS: i64 = 85;
const STEPS_AT_NIGHT: i64 = 3_000;

/// The sample organisation, where the nightly run gets its tokens as JWT-SVIDs too.
pub(crate) fn both_kinds() -> Vec<SourceFile> {
    let mut files = sample();
    let tasks = files.iter_mut().find(|file| file.path == "tasks.toml").unwrap();
    let (task, kinds) = ("[task.post-invoices]\n", "kinds = [\"at+jwt\"]\n");
    let at = tasks.text.find(task).unwrap();
    let both = "kinds = [\"at+jwt\", \"jwt-svid\"]\nprofile = \"at+jwt\"\nbearer = true\n";
    let rest = tasks.text.split_off(at).replacen(kinds, both, 1);
    tasks.text.push_str(&rest);
    files
}

/// A copy of published keys, as a verifier keeps it.
struct Copied {
    at: UnixMs,
    until: UnixMs,
    kids: BTreeSet<String>,
}

/// A token that somebody may show until its end.
struct Shown {
    until: UnixMs,
    kid: String,
}

async fn fetched(deployment: &Deployment, path: &str) -> Copied {
    let url = format!("{}{path}", deployment.settings.issuer.as_str());
    let ca = deployment.listener_ca.to_str().unwrap();
    let arguments = ["--silent", "--fail", "--include", "--noproxy", "*", "--cacert", ca, &url];
    let (answer, at) = (run("curl", arguments).await.stdout, deployment.clock.now());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let header = head.lines().find_map(|line| line.strip_prefix("cache-control: ")).unwrap();
    let max_age = header.split(", ").find_map(|part| part.strip_prefix("max-age=")).unwrap();
    assert!(!header.contains("stale"), "nobody is told to use it for longer: {header}");
    let document: Value = serde_json::from_str(body).unwrap();
    if let Some(hint) = document.get("spiffe_refresh_hint") {
        assert_eq!(hint.to_string(), max_age);
    }
    let keys = document["keys"].as_array().unwrap();
    let kids = keys.iter().filter_map(|key| Some(key["kid"].as_str()?.to_owned())).collect();
    Copied { at, until: at.plus_millis(max_age.parse::<i64>().unwrap() * 1000), kids }
}

async fn shown(deployment: &Deployment, profile: pb::TokenProfile) -> Shown {
    let ttl = Some(prost_types::Duration { seconds: 300, nanos: 0 });
    let wanted = Some(Wanted::Token(pb::TokenParameters { profile: profile.into(), confirmation: None }));
    let wanted = pb::IssueRequest { ttl, credential: wanted, ..task("post-invoices") };
    let answer = issue(&deployment.service().await, wanted).await.unwrap();
    let (header, claims) = claims_of(token_of(&answer));
    let until = UnixMs::from_seconds(claims["exp"].as_i64().unwrap());
    Shown { until, kid: header["kid"].as_str().unwrap().to_owned() }
}

/// Verifiers with every copy that they may still use, and every token that may still be shown to them.
#[derive(Default)]
struct Verifiers {
    copies: Vec<Copied>,
    tokens: Vec<Shown>,
    signed: BTreeSet<String>,
    checked: u64,
}

impl Verifiers {
    fn check(&mut self, now: UnixMs, copy: Copied, token: Shown) {
        self.signed.insert(token.kid.clone());
        self.copies.push(copy);
        self.tokens.push(token);
        self.copies.retain(|copy| now <= copy.until);
        self.tokens.retain(|token| now < token.until);
        for copy in &self.copies {
            for token in &self.tokens {
                self.checked += 1;
                let age_ms = now.millis_since(copy.at);
                assert!(copy.kids.contains(&token.kid), "unknown in a copy of {age_ms} ms: {}", token.kid);
            }
        }
    }
}

/// What was due is done and shown: without waiting for the second in which the broker looks by itself.
async fn look(running: &Running) {
    running.rotation.look().await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
}

#[tokio::test]
async fn a_verifier_that_fetches_as_late_as_it_may_knows_every_key_over_many_rotations() {
    let mut deployment = Deployment::stopped(both_kinds()).await;
    deployment.settings.lifetimes = TEN_MINUTES;
    deployment.resume().await.unwrap();
    let (mut tokens, mut svids) = (Verifiers::default(), Verifiers::default());
    for step in 0..if nightly() { STEPS_AT_NIGHT } else { STEPS } {
        deployment.clock.advance(STEP_S * 1000);
        match step {
            25 => {
                deployment.stop().await;
                deployment.resume().await.unwrap();
            }
            45 => {
                let order = Order { usage: KeyUse::Token, compromised: None };
                deployment.broker().rotation.order(&order, &Default::default()).await.unwrap();
            }
            _ => {}
        }
        look(deployment.broker()).await;
        let (jwks, bundle) = tokio::join!(fetched(&deployment, "/jwks"), fetched(&deployment, "/bundle"));
        let token = shown(&deployment, pb::TokenProfile::AccessToken).await;
        let svid = shown(&deployment, pb::TokenProfile::JwtSvid).await;
        let now = deployment.clock.now();
        tokens.check(now, jwks, token);
        svids.check(now, bundle, svid);
    }
    assert!(tokens.signed.len() >= 6 && svids.signed.len() >= 5, "{:?}", (tokens.signed, svids.signed));
    assert!(tokens.checked > 2_000, "{} pairs of a copy and a token", tokens.checked);
    let rotations = tokens.signed.len() + svids.signed.len() - 2;
    stood("P9", "the next key signs, for whoever holds the oldest copy that is allowed", rotations);
}
