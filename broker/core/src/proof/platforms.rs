//! Tokens in the form that each platform gives them, against issuers that are declared by their presets: one that is
//! good, and the same with one thing spoiled at a time.

use std::collections::HashMap;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_evidence::entry::ProofUse;
use daypass_verify::jwks::KeySet;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::*;
use crate::bundle::sample;
use crate::bundle::{SourceFile, compile};
use crate::fixture::{NOW, OURS};

/// What platforms sign with, and the key set that they publish: RSA, with members that say nothing here.
struct Platform {
    key: RsaKeyPair,
    keys: Arc<KeySet>,
}

static PLATFORM: LazyLock<Platform> = LazyLock::new(|| {
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let pkcs8 = PrivatePkcs8KeyDer::from_pem_slice(&made.stdout).unwrap();
    let key = RsaKeyPair::from_pkcs8(pkcs8.secret_pkcs8_der()).unwrap();
    let public: ring::rsa::PublicKeyComponents<Vec<u8>> = key.public().into();
    let set = json!({"keys": [{
        "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "2026-a", "n": URL_SAFE_NO_PAD.encode(public.n),
        "e": "AQAB", "x5c": ["MIIB"], "x5t": "38826b17-6a30-5f9b-b169-8beb8202f723",
    }]});
    let (keys, _) = KeySet::parse(set.to_string().as_bytes()).unwrap();
    Platform { key, keys: Arc::new(keys) }
});

impl Platform {
    fn mint(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

const NAME: &str = "prod/platforms/job";

/// The sample organisation with one more issuer, and one more identity that proves itself there.
pub(crate) fn declaring(issuer: &str, clause: &str) -> Vec<SourceFile> {
    let mut files = sample::files();
    let identity = format!(
        "[identity.\"{NAME}\"]\nclass = \"service\"\nprivilege = \"low\"\npurpose = \"tests\"\n\
         business_owner = \"finance\"\ntechnical_owner = \"platform\"\nenvironment = \"prod\"\n\
         expires = 2027-11-30\nreview_every = \"90d\"\ntasks = [\"post-invoices\"]\nproofs = [{clause}]\n"
    );
    let issuer = format!("[issuer.platform]\nenvironment = \"prod\"\n{issuer}\n");
    for (path, text) in [("identities/platform.toml", identity), ("issuers/platform.toml", issuer)] {
        files.push(SourceFile { path: path.into(), text });
    }
    files
}

fn bundle(issuer: &str, clause: &str) -> Bundle {
    compile(&declaring(issuer, clause)).unwrap_or_else(|findings| panic!("{}", sample::lines(&findings)))
}

fn shown(bundle: &Bundle, header: &Value, claims: &Value) -> Result<Principal, ProofError> {
    let token = UnverifiedToken::parse(&PLATFORM.mint(header, claims))?;
    let known = HashMap::from([("platform".parse().unwrap(), IssuerKeys::Jwks(Arc::clone(&PLATFORM.keys)))]);
    UnverifiedProof::IdToken { token, holder: None }.verify(bundle, &KnownKeys::new(known), OURS, NOW)
}

type Spoil = fn(&mut Value);

/// One platform: its issuer, a clause, a token, and what becomes of it.
struct Case {
    issuer: &'static str,
    clause: &'static str,
    header: Value,
    claims: Value,
    usage: ProofUse,
    instance: Option<&'static str>,
    /// What is spoiled, and the inner reason; none: the token holds and fits nobody.
    spoiled: &'static [(&'static str, Spoil, Option<&'static str>)],
}

impl Case {
    fn check(&self) {
        let bundle = bundle(self.issuer, self.clause);
        let good = shown(&bundle, &self.header, &self.claims).unwrap();
        assert_eq!(good.identities(), [(NAME.parse().unwrap(), 0)]);
        assert_eq!((good.usage(), good.instance()), (self.usage, self.instance));
        for (what, spoil, expected) in self.spoiled {
            let mut claims = self.claims.clone();
            spoil(&mut claims);
            assert_ne!(claims, self.claims, "{what} spoils nothing");
            match (shown(&bundle, &self.header, &claims), expected) {
                (Err(error), Some(inner)) => assert_eq!(error.inner_reason(), *inner, "{what}"),
                (Ok(nobody), None) => assert!(nobody.identities().is_empty(), "{what}"),
                (outcome, _) => panic!("{what}: {outcome:?}"),
            }
        }
    }
}

fn now() -> i64 {
    NOW.seconds()
}

fn without(claims: &mut Value, name: &str) {
    claims.as_object_mut().unwrap().remove(name);
}

#[test]
fn a_projected_token_of_kubernetes_names_its_pod_and_may_be_shown_again() {
    Case {
        issuer: "preset = \"kubernetes\"\nin_cluster = true",
        clause: r#"{ issuer = "platform", subject = "system:serviceaccount:billing:nightly" }"#,
        header: json!({"alg": "RS256", "kid": "2026-a"}),
        claims: json!({
            "aud": [OURS], "exp": now() + 3590, "iat": now() - 10, "nbf": now() - 10,
            "iss": "https://kubernetes.default.svc.cluster.local", "jti": "5fd1cd9b-3a7b-4a4c-9c2d-5b2dfc1c0a55",
            "kubernetes.io": {
                "namespace": "billing",
                "node": {"name": "node-7", "uid": "9c9fcb6c-fd0a-4ab0-8d6b-5f3a3f9d0b7f"},
                "pod": {"name": "nightly-6c5d", "uid": "7e5ed37d-0a1f-4a39-8a2e-4a3f4f0b2f10"},
                "serviceaccount": {"name": "nightly", "uid": "0b7b6ab6-5d4f-4c51-8f0c-2f6f4e0d9d11"},
            },
            "sub": "system:serviceaccount:billing:nightly",
        }),
        usage: ProofUse::UntilExpiry,
        instance: Some("7e5ed37d-0a1f-4a39-8a2e-4a3f4f0b2f10"),
        spoiled: &[
            ("another account", |it| it["sub"] = json!("system:serviceaccount:billing:nightly2"), None),
            ("another namespace", |it| it["sub"] = json!("system:serviceaccount:billin:nightly"), None),
            ("two audiences", |it| it["aud"] = json!([OURS, "https://kubernetes.default.svc"]), Some("BAD_AUDIENCE")),
            ("for the API server", |it| it["aud"] = json!(["https://kubernetes.default.svc"]), Some("BAD_AUDIENCE")),
            ("of a legacy secret", |it| it["iss"] = json!("kubernetes/serviceaccount"), Some("BAD_ISSUER")),
            ("bound to no pod", |it| without(&mut it["kubernetes.io"], "pod"), Some("BAD_INSTANCE")),
            ("a pod without uid", |it| without(&mut it["kubernetes.io"]["pod"], "uid"), Some("BAD_INSTANCE")),
            (
                "the uid beside",
                |it| {
                    without(it, "kubernetes.io");
                    it["/kubernetes.io/pod/uid"] = json!("7e5ed37d-0a1f-4a39-8a2e-4a3f4f0b2f10");
                },
                Some("BAD_INSTANCE"),
            ),
            ("a second pod", |it| it["kubernetes.io"]["Pod"] = json!({"uid": "other"}), Some("MALFORMED")),
            ("for a year", |it| it["exp"] = json!(now() + 365 * 86_400), Some("PROOF_TOO_LONG")),
        ],
    }
    .check();
}

#[test]
fn a_job_of_github_actions_is_known_by_its_ids_its_event_and_its_environment() {
    Case {
        issuer: "preset = \"github-actions\"",
        clause: r#"{ issuer = "platform", claims = { repository_id = "74", repository_owner_id = "65",
                    event_name = ["push", "workflow_dispatch"], environment = "production" } }"#,
        header: json!({"typ": "JWT", "alg": "RS256", "x5t": "38826b17-6a30-5f9b-b169-8beb8202f723", "kid": "2026-a"}),
        claims: json!({
            "jti": "1f4d6a1e-8f1c-4c9d-b6a4-ec5bd6bfa5c1", "sub": "repo:example-org/shop:environment:production",
            "environment": "production", "environment_node_id": "EN_x", "aud": OURS, "ref": "refs/heads/main",
            "sha": "ffffffffffffffffffffffffffffffffffffffff", "repository": "example-org/shop",
            "repository_owner": "example-org", "actor_id": "12", "repository_visibility": "private",
            "repository_id": "74", "repository_owner_id": "65", "run_id": "9012345678", "run_number": "10",
            "run_attempt": "2", "runner_environment": "github-hosted", "actor": "someone", "workflow": "deploy",
            "workflow_ref": "example-org/shop/.github/workflows/deploy.yml@refs/heads/main", "head_ref": "",
            "base_ref": "", "event_name": "push", "ref_protected": "true", "ref_type": "branch",
            "job_workflow_ref": "example-org/shop/.github/workflows/deploy.yml@refs/heads/main",
            "iss": "https://token.actions.githubusercontent.com", "nbf": now() - 610, "exp": now() + 290,
            "iat": now() - 10,
        }),
        usage: ProofUse::Once,
        instance: Some("9012345678"),
        spoiled: &[
            (
                "a fork, or a new repository of the old name",
                |it| it["repository_id"] = json!("75"),
                None,
            ),
            ("another owner of the old name", |it| it["repository_owner_id"] = json!("66"), None),
            ("a pull request", |it| it["event_name"] = json!("pull_request"), None),
            ("another environment", |it| it["environment"] = json!("Production"), None),
            ("no environment", |it| without(it, "environment"), None),
            ("no run", |it| without(it, "run_id"), Some("BAD_INSTANCE")),
            ("a twin", |it| it["Environment"] = json!("production"), Some("MALFORMED")),
            ("the audience of everybody", |it| it["aud"] = json!("https://github.com/example-org"), Some("BAD_AUDIENCE")),
            (
                "the issuer of one enterprise",
                |it| it["iss"] = json!("https://token.actions.githubusercontent.com/example"),
                Some("BAD_ISSUER"),
            ),
        ],
    }
    .check();
}

#[test]
fn a_job_of_gitlab_ci_is_known_by_its_ids_its_source_and_its_environment() {
    Case {
        issuer: "preset = \"gitlab-ci\"\nurl = \"https://gitlab.example.org\"",
        clause: r#"{ issuer = "platform", claims = { project_id = "22", namespace_id = "72", pipeline_source = "push",
                    environment = "production", ref_protected = "true" } }"#,
        header: json!({"kid": "2026-a", "typ": "JWT", "alg": "RS256"}),
        claims: json!({
            "namespace_id": "72", "namespace_path": "example", "project_id": "22", "project_path": "example/shop",
            "user_id": "1", "user_login": "someone", "user_email": "someone@example.org", "user_access_level": "owner",
            "user_identities": [{"provider": "saml", "extern_uid": "42"}], "pipeline_id": "574",
            "pipeline_source": "push", "job_id": "302", "ref": "main", "ref_type": "branch",
            "ref_path": "refs/heads/main", "ref_protected": "true", "groups_direct": ["example"],
            "environment": "production", "environment_protected": "true", "deployment_tier": "production",
            "environment_action": "start", "runner_id": 1, "runner_environment": "self-hosted",
            "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc", "project_visibility": "private",
            "ci_config_ref_uri": "gitlab.example.org/example/shop//.gitlab-ci.yml@refs/heads/main",
            "ci_config_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
            "jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b", "iss": "https://gitlab.example.org", "iat": now() - 10,
            "nbf": now() - 15, "exp": now() + 3590, "sub": "project_path:example/shop:ref_type:branch:ref:main",
            "aud": OURS,
        }),
        usage: ProofUse::Once,
        instance: Some("302"),
        spoiled: &[
            ("another project", |it| it["project_id"] = json!("23"), None),
            ("moved to another group", |it| it["namespace_id"] = json!("73"), None),
            ("a merge request", |it| it["pipeline_source"] = json!("merge_request_event"), None),
            ("a branch for all", |it| it["ref_protected"] = json!("false"), None),
            ("another environment", |it| it["environment"] = json!("review/x"), None),
            ("no job", |it| without(it, "job_id"), Some("BAD_INSTANCE")),
            ("of gitlab.com", |it| it["iss"] = json!("https://gitlab.com"), Some("BAD_ISSUER")),
        ],
    }
    .check();
}

#[test]
fn a_google_service_account_is_known_by_its_number() {
    Case {
        issuer: "preset = \"google\"",
        clause: r#"{ issuer = "platform", subject = "112010400000000710080" }"#,
        header: json!({"alg": "RS256", "kid": "2026-a", "typ": "JWT"}),
        claims: json!({
            "iss": "https://accounts.google.com", "iat": now() - 10, "exp": now() + 3590, "aud": OURS,
            "sub": "112010400000000710080", "azp": "112010400000000710080",
            "email": "nightly@example-prod.iam.gserviceaccount.com", "email_verified": true,
            "google": {"compute_engine": {
                "project_id": "example-prod", "project_number": 739_419_398_126_i64, "zone": "europe-west1-b",
                "instance_id": "152986662232938449", "instance_name": "vm-1",
                "instance_creation_timestamp": 1_504_641_836,
            }},
        }),
        usage: ProofUse::Once,
        instance: None,
        spoiled: &[
            ("another account under the same address", |it| it["sub"] = json!("112010400000000710081"), None),
            ("without `https`", |it| it["iss"] = json!("accounts.google.com"), Some("BAD_ISSUER")),
            ("for a cloud service", |it| it["aud"] = json!("https://run.example.org"), Some("BAD_AUDIENCE")),
        ],
    }
    .check();
    Case {
        issuer: "preset = \"google\"\nreplay = \"until_expiry\"\ninstance_claim = \"/google/compute_engine/instance_id\"",
        clause: r#"{ issuer = "platform", subject = "112", claims = { "/google/compute_engine/project_number" = "7" } }"#,
        header: json!({"alg": "RS256", "kid": "2026-a", "typ": "JWT"}),
        claims: json!({
            "iss": "https://accounts.google.com", "iat": now(), "exp": now() + 3600, "aud": OURS, "sub": "112",
            "google": {"compute_engine": {"project_number": 7, "instance_id": "15"}},
        }),
        usage: ProofUse::UntilExpiry,
        instance: Some("15"),
        spoiled: &[
            ("another project", |it| it["google"]["compute_engine"]["project_number"] = json!(8), None),
            ("the short form", |it| without(it, "google"), Some("BAD_INSTANCE")),
        ],
    }
    .check();
}

#[test]
fn a_role_of_an_aws_account_is_known_by_its_arn_and_by_what_lies_within_its_claims() {
    Case {
        issuer: "preset = \"aws\"\nurl = \"https://3f1c5b9e-0a4e-4b5e-9d7c-1c2f3a4b5c6d.tokens.sts.global.api.aws\"",
        clause: r#"{ issuer = "platform", subject = "arn:aws:iam::123456789012:role/nightly",
                    claims = { "/https:~1~1sts.amazonaws.com~1/org_id" = "o-abc1234567" } }"#,
        header: json!({"alg": "RS256", "kid": "2026-a", "typ": "JWT"}),
        claims: json!({
            "iss": "https://3f1c5b9e-0a4e-4b5e-9d7c-1c2f3a4b5c6d.tokens.sts.global.api.aws", "aud": OURS,
            "sub": "arn:aws:iam::123456789012:role/nightly", "iat": now() - 10, "exp": now() + 290,
            "jti": "0d3c1a52-6d58-45a4-9d0b-0c0f5a4c6e2a",
            "https://sts.amazonaws.com/": {
                "aws_account": "123456789012", "source_region": "eu-central-1", "org_id": "o-abc1234567",
                "ou_path": "o-a1b2c3d4e5/r-ab12/ou-ab12-11111111/", "principal_tags": {"team": "billing"},
                "request_tags": {"job": "2026-11-22"},
            },
        }),
        usage: ProofUse::Once,
        instance: None,
        spoiled: &[
            ("another role", |it| it["sub"] = json!("arn:aws:iam::123456789012:role/nightly2"), None),
            ("another account", |it| it["sub"] = json!("arn:aws:iam::123456789013:role/nightly"), None),
            (
                "another organisation",
                |it| it["https://sts.amazonaws.com/"]["org_id"] = json!("o-zzz1234567"),
                None,
            ),
            (
                "a tag of the caller's own",
                |it| {
                    without(&mut it["https://sts.amazonaws.com/"], "org_id");
                    it["https://sts.amazonaws.com/"]["request_tags"]["org_id"] = json!("o-abc1234567");
                },
                None,
            ),
            (
                "another account's issuer",
                |it| it["iss"] = json!("https://00000000-0a4e-4b5e-9d7c-1c2f3a4b5c6d.tokens.sts.global.api.aws"),
                Some("BAD_ISSUER"),
            ),
        ],
    }
    .check();
}

#[test]
fn a_jwt_svid_is_known_by_its_spiffe_id() {
    Case {
        issuer: "preset = \"spiffe-jwt\"\nurl = \"https://oidc.spire.example.org\"",
        clause: r#"{ issuer = "platform", subject = "spiffe://example.org/ns/billing/sa/nightly" }"#,
        header: json!({"alg": "RS256", "kid": "2026-a", "typ": "JWT"}),
        claims: json!({
            "aud": [OURS], "exp": now() + 290, "iat": now() - 10, "iss": "https://oidc.spire.example.org",
            "sub": "spiffe://example.org/ns/billing/sa/nightly",
        }),
        usage: ProofUse::Once,
        instance: None,
        spoiled: &[
            (
                "another workload",
                |it| it["sub"] = json!("spiffe://example.org/ns/billing/sa/nightly/x"),
                None,
            ),
            ("another domain", |it| it["sub"] = json!("spiffe://example.com/ns/billing/sa/nightly"), None),
            ("no issuer", |it| without(it, "iss"), Some("BAD_ISSUER")),
            ("no time of issue", |it| without(it, "iat"), Some("MALFORMED")),
        ],
    }
    .check();
}
