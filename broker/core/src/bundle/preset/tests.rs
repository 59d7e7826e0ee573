//! What a preset fills in, and what it asks of those who use it.

use daypass_evidence::entry::ObjectType;
use serde_json::{Value, json};

use crate::bundle::{Finding, compile};
use crate::proof::platforms::declaring;

/// The declared object of the issuer, as the log's entry holds it.
fn compiled(issuer: &str, clause: &str) -> Value {
    let bundle = compile(&declaring(issuer, clause)).unwrap();
    let mut objects = bundle.objects();
    let found = objects.find(|(kind, name, _)| *kind == ObjectType::Issuer && name.as_str() == "platform");
    found.map(|(_, _, declared)| declared.into()).unwrap()
}

#[test]
fn what_a_preset_fills_in_is_in_the_compiled_bundle_and_not_its_name_alone() {
    let github = r#"{ issuer = "platform", claims = { repository_id = "7", repository_owner_id = "6", event_name = "push", ref = "refs/heads/main" } }"#;
    assert_eq!(
        compiled("preset = \"github-actions\"", github),
        json!({
            "preset": "github-actions", "kind": "oidc", "url": "https://token.actions.githubusercontent.com",
            "keys": "discovery", "algs": ["RS256"], "typs": ["JWT"], "proof_ttl_max_s": 600,
            "instance_claim": "run_id", "environment": "prod", "replay": "once", "actor": "workload",
            "required_claims": [["environment", "ref"], ["event_name"], ["repository_id"], ["repository_owner_id"]],
        })
    );
    let account = r#"{ issuer = "platform", subject = "system:serviceaccount:a:b" }"#;
    assert_eq!(
        compiled("preset = \"kubernetes\"\nin_cluster = true", account),
        json!({
            "preset": "kubernetes", "kind": "oidc", "url": "https://kubernetes.default.svc.cluster.local",
            "keys": "cluster", "algs": ["ES256", "RS256"], "typs": ["JWT"], "proof_ttl_max_s": 3600,
            "instance_claim": "/kubernetes.io/pod/uid", "environment": "prod", "replay": "until_expiry",
            "proof_caps": true, "internal": true, "actor": "workload", "required_claims": [["sub"]],
        })
    );
}

#[test]
fn what_a_declaration_says_itself_goes_before_its_preset_and_adds_to_what_is_asked_for() {
    let clause =
        r#"{ issuer = "platform", subject = "112", claims = { "/google/compute_engine/zone" = "z" } }"#;
    let google = compiled(
        "preset = \"google\"\nproof_ttl_max = \"5m\"\nreplay = \"until_expiry\"\n\
         instance_claim = \"/google/compute_engine/instance_id\"\nrequired_claims = [\"/google/compute_engine/zone\"]",
        clause,
    );
    assert_eq!(google["proof_ttl_max_s"], 300);
    assert_eq!(google["replay"], "until_expiry");
    assert_eq!(google["required_claims"], json!([["/google/compute_engine/zone"], ["sub"]]));
}

/// An issuer, a clause for it, the code and the whole message of what refuses it, less whose it is.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    (
        "preset = \"github-actions\"",
        r#"{ issuer = "platform", claims = { repository_owner_id = "6", event_name = "push", environment = "production" } }"#,
        "open-proof",
        "a proof of issuer `platform` without claim `repository_id`: others whom that issuer vouches for could fit; name it too",
    ),
    (
        "preset = \"github-actions\"",
        r#"{ issuer = "platform", claims = { repository_id = "7", repository_owner_id = "6", event_name = "push" } }"#,
        "open-proof",
        "a proof of issuer `platform` without claim `environment` or claim `ref`: others whom that issuer vouches for could fit; name one of them too",
    ),
    (
        "preset = \"github-actions\"",
        r#"{ issuer = "platform", subject = "repo:example-org/shop:ref:refs/heads/main", claims = { repository_id = "7", repository_owner_id = "6", environment = "production" } }"#,
        "open-proof",
        "a proof of issuer `platform` without claim `event_name`: others whom that issuer vouches for could fit; name it too",
    ),
    (
        "preset = \"github-actions\"",
        r#"{ issuer = "platform", claims = { repository_id = "7", repository_owner_id = "6", event_name = ["push", "pull_request_target"], ref = "refs/heads/main" } }"#,
        "outside-event",
        "whoever proposes a change can bring about `pull_request_target`: name the `environment` whose reviewers stand before it, or leave it out",
    ),
    (
        "preset = \"github-actions\"",
        r#"{ issuer = "platform", claims = { repository_id = "*", repository_owner_id = "6", event_name = "push", ref = "refs/heads/main" } }"#,
        "wildcard",
        "`*` has a wildcard or a control character: a condition is an exact string, list the values one by one",
    ),
    (
        "kind = \"oidc\"\nurl = \"https://token.actions.githubusercontent.com/example\"\nalgs = [\"RS256\"]\nproof_ttl_max = \"10m\"",
        r#"{ issuer = "platform", claims = { event_name = "push" } }"#,
        "preset",
        "`url` is that of an issuer that vouches for everybody: expected `preset = \"github-actions\"`, which asks each proof whose it is",
    ),
    (
        "preset = \"gitlab-ci\"",
        r#"{ issuer = "platform", claims = { project_id = "7", namespace_id = "6", pipeline_source = "merge_request_event", ref_protected = "true" } }"#,
        "outside-event",
        "whoever proposes a change can bring about `merge_request_event`: name the `environment` whose reviewers stand before it, or leave it out",
    ),
    (
        "preset = \"gitlab-ci\"",
        r#"{ issuer = "platform", claims = { project_path = "example/shop", namespace_id = "6", pipeline_source = "push", ref_protected = "true" } }"#,
        "open-proof",
        "a proof of issuer `platform` without claim `project_id`: others whom that issuer vouches for could fit; name it too",
    ),
    (
        "preset = \"kubernetes\"\nin_cluster = true",
        r#"{ issuer = "platform", claims = { "/kubernetes.io/namespace" = "billing" } }"#,
        "open-proof",
        "a proof of issuer `platform` without `subject`: others whom that issuer vouches for could fit; name it too",
    ),
    (
        "preset = \"kubernetes\"\nin_cluster = true",
        r#"{ issuer = "platform", subject = "system:serviceaccount:billing" }"#,
        "subject-form",
        "`system:serviceaccount:billing` is no subject of such a token: expected `system:serviceaccount:NAMESPACE:NAME`",
    ),
    (
        "preset = \"kubernetes\"",
        r#"{ issuer = "platform", subject = "system:serviceaccount:billing:nightly" }"#,
        "missing-key",
        "`url` is missing: it must be declared",
    ),
    (
        "preset = \"google\"",
        r#"{ issuer = "platform", subject = "nightly@example-prod.iam.gserviceaccount.com" }"#,
        "subject-form",
        "`nightly@example-prod.iam.gserviceaccount.com` is no subject of such a token: expected the account's unique id, digits alone: its e-mail address can be given to another account",
    ),
    (
        "preset = \"google\"",
        r#"{ issuer = "platform", claims = { email = "nightly@example-prod.iam.gserviceaccount.com" } }"#,
        "open-proof",
        "a proof of issuer `platform` without `subject`: others whom that issuer vouches for could fit; name it too",
    ),
    (
        "preset = \"aws\"\nurl = \"https://x.tokens.sts.global.api.aws\"",
        r#"{ issuer = "platform", subject = "arn:aws:iam::nightly" }"#,
        "subject-form",
        "`arn:aws:iam::nightly` is no subject of such a token: expected the ARN of a role, `arn:aws:iam::ACCOUNT:role/NAME`",
    ),
    (
        "preset = \"spiffe-jwt\"\nurl = \"https://oidc.spire.example.org\"",
        r#"{ issuer = "platform", subject = "ns/billing/sa/nightly" }"#,
        "subject-form",
        "`ns/billing/sa/nightly` is no subject of such a token: expected a SPIFFE ID, `spiffe://TRUST-DOMAIN/PATH`",
    ),
    (
        "preset = \"spiffe-x509\"\nca_file = \"issuers/workloads.pem\"",
        r#"{ issuer = "platform", spiffe_id = "spiffe://example.org/ns/billing/sa/nightly" }"#,
        "missing-key",
        "`trust_domain` is missing: it must be declared",
    ),
];

#[test]
fn a_declaration_that_would_let_others_in_is_refused_in_these_words() {
    for (issuer, clause, code, message) in REFUSED {
        let findings = compile(&declaring(issuer, clause)).expect_err(clause);
        let said = |it: &Finding| {
            it.refuses
                && it.code == *code
                && it.message.split_once(": ").is_some_and(|(_, said)| said == *message)
                && it.path.ends_with("platform.toml")
        };
        assert!(findings.iter().any(said), "{clause}: {findings:#?}");
    }
}

#[test]
fn what_a_reviewer_must_release_may_be_brought_about_from_outside() {
    let clause = r#"{ issuer = "platform", claims = { repository_id = "7", repository_owner_id = "6", event_name = "pull_request", environment = "preview" } }"#;
    assert!(compile(&declaring("preset = \"github-actions\"", clause)).is_ok());
}

#[test]
fn x509_svids_are_believed_within_their_trust_domain() {
    let issuer =
        "preset = \"spiffe-x509\"\nca_file = \"issuers/workloads.pem\"\ntrust_domain = \"example.org\"";
    let clause = r#"{ issuer = "platform", spiffe_id = "spiffe://example.org/ns/billing/sa/nightly" }"#;
    let declared = compiled(issuer, clause);
    assert_eq!((&declared["kind"], &declared["replay"]), (&json!("client_ca"), &json!("until_expiry")));
    let foreign = clause.replace("example.org", "example.com");
    let findings = compile(&declaring(issuer, &foreign)).unwrap_err();
    assert!(findings.iter().any(|it| it.code == "proof-form" && it.refuses), "{findings:#?}");
}
