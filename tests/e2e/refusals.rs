//! A refused caller learns what it needs and no more; the log and the operators learn the rest.

use daypass_evidence::entry::{Body, CredentialRefused};
use daypass_proto::v1 as pb;
use daypass_tests::harness::{CI, Deployment, NIGHTLY, issue, task};
use tonic::Code;

fn refused(entry: &daypass_evidence::entry::Entry) -> Option<CredentialRefused> {
    match &entry.body {
        Body::CredentialRefused(refused) => Some((**refused).clone()),
        _ => None,
    }
}

#[tokio::test]
async fn a_caller_learns_which_of_its_own_wishes_went_too_far() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let good = || task("post-invoices");
    let table = [
        ("another's task", task("deploy-web"), "TASK_NOT_ALLOWED"),
        ("a task that nobody declared", task("no-such-task"), "TASK_NOT_ALLOWED"),
        (
            "another's audience",
            pb::IssueRequest { audiences: vec!["https://orders.example.org".into()], ..good() },
            "AUDIENCE_NOT_ALLOWED",
        ),
        (
            "an audience that nobody declared",
            pb::IssueRequest { audiences: vec!["https://evil.example".into()], ..good() },
            "AUDIENCE_NOT_ALLOWED",
        ),
        (
            "an action beyond the task",
            pb::IssueRequest { actions: vec!["release:create".into()], ..good() },
            "ACTION_NOT_ALLOWED",
        ),
        (
            "a resource beyond the task",
            pb::IssueRequest { resources: vec!["shop/web".into()], ..good() },
            "RESOURCE_NOT_ALLOWED",
        ),
        (
            "a prefix of a resource's name",
            pb::IssueRequest { resources: vec!["eu-evil/x".into()], ..good() },
            "RESOURCE_NOT_ALLOWED",
        ),
    ];
    for (what, wanted, reason) in table {
        let refused = issue(&service, wanted).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::PermissionDenied, reason),
            "{what}: {refused:?}"
        );
        assert!(!refused.request_id.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn what_is_not_well_formed_is_named_by_its_field() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let good = || task("post-invoices");
    let resources = |text: &str| pb::IssueRequest { resources: vec![text.into()], ..good() };
    let table = [
        ("no task", task(""), "task"),
        ("a task of 129 bytes", task(&"a".repeat(129)), "task"),
        ("identity with `..`", pb::IssueRequest { identity: "prod/../x".into(), ..good() }, "identity"),
        (
            "an action with a space",
            pb::IssueRequest { actions: vec!["invoice read".into()], ..good() },
            "actions",
        ),
        ("65 actions", pb::IssueRequest { actions: vec!["a".into(); 65], ..good() }, "actions"),
        ("`..` in a resource", resources("eu/../us/x"), "resources"),
        ("`.` in a resource", resources("eu/./x"), "resources"),
        ("an empty segment", resources("eu//x"), "resources"),
        ("an escaped slash", resources("eu%2fx"), "resources"),
        ("a matrix parameter", resources("eu;x/y"), "resources"),
        ("a glob inside", resources("eu/*/x"), "resources"),
        ("a bare glob", resources("*"), "resources"),
        ("a resource of 513 bytes", resources(&"abc/".repeat(129)), "resources"),
        ("a run of 129 bytes", pb::IssueRequest { run: "x".repeat(129), ..good() }, "run"),
        ("a run with a newline", pb::IssueRequest { run: "a\nb".into(), ..good() }, "run"),
        ("a request id that is no UUID", pb::IssueRequest { request_id: "1".into(), ..good() }, "request_id"),
        (
            "a checkpoint that is none",
            pb::IssueRequest { known_checkpoint: vec![1, 2].into(), ..good() },
            "known_checkpoint",
        ),
    ];
    for (what, wanted, field) in table {
        let refused = issue(&service, wanted).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::InvalidArgument, "MALFORMED"),
            "{what}: {refused:?}"
        );
        assert_eq!(refused.fields, [field], "{what}");
    }
}

#[tokio::test]
async fn a_rule_that_forbids_is_told_to_operators_alone() {
    let deployment = Deployment::start().await;
    let token = deployment.organisation.token("cluster-test", "test/billing/nightly").unwrap();
    let caller = deployment.bound(token).await;
    let wanted =
        pb::IssueRequest { audiences: vec!["https://ledger.example.org".into()], ..task("read-invoices") };
    let refused = issue(&caller, wanted).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
    assert!(!refused.message.contains("base/"), "{}", refused.message);
    let explained = deployment.explain(&refused.request_id).await;
    assert!(explained.rules.contains(&"base/own-environment".to_owned()), "{explained:?}");
}

#[tokio::test]
async fn an_unknown_workload_and_a_denied_one_are_told_the_same() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, NIGHTLY);
    let stranger = deployment
        .bound(forge.with(|_, claims| drop(claims.insert("sub".into(), "project:9:ref:main".into()))))
        .await;
    let stranger = issue(&stranger, task("post-invoices")).await.unwrap_err();
    let denied = deployment.organisation.token("cluster-test", "test/billing/nightly").unwrap();
    let wanted =
        pb::IssueRequest { audiences: vec!["https://ledger.example.org".into()], ..task("read-invoices") };
    let denied = issue(&deployment.bound(denied).await, wanted).await.unwrap_err();
    let told = |it: &daypass_tests::harness::Refused| (it.code, it.reason.clone(), it.message.clone());
    assert_eq!(told(&stranger), told(&denied));
}

#[tokio::test]
async fn a_refusal_is_recorded_within_5_s_and_its_like_are_counted() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let first = issue(&service, task("deploy-web")).await.unwrap_err();
    let began = std::time::Instant::now();
    let (index, entry) = deployment.entry("the refusal", refused).await;
    assert!(began.elapsed().as_secs() < 5);
    assert_eq!((entry.count, entry.task.as_deref()), (1, Some("deploy-web")));
    assert_eq!(entry.identity.unwrap().name, NIGHTLY.parse().unwrap());
    let explained = deployment.explain(&first.request_id).await;
    assert_eq!((explained.source.as_str(), explained.reason.as_str()), ("log", entry.reason.as_str()));

    for _ in 0..7 {
        assert!(issue(&service, task("deploy-web")).await.is_err());
    }
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let waiting = deployment.entries().await.iter().filter_map(|(_, entry)| refused(entry)).count();
    assert_eq!(waiting, 1, "the rest of the minute is one entry");
    deployment.clock.advance(61_000);
    let counted = deployment.entry("the count", |entry| refused(entry).filter(|it| it.count > 1)).await;
    assert!(counted.0 > index);
    assert_eq!(counted.1.count, 7);
}

#[tokio::test]
async fn a_failed_proof_is_no_entry_of_its_own() {
    let deployment = Deployment::start().await;
    let size = deployment.acts().await;
    for _ in 0..20 {
        let refused =
            issue(&deployment.bound("no.good.token").await, task("post-invoices")).await.unwrap_err();
        assert_eq!(refused.reason, "PROOF_REFUSED");
    }
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(deployment.acts().await, size, "strangers cannot grow the log");
}

#[tokio::test]
async fn a_workload_is_only_itself() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let as_another = pb::IssueRequest { identity: "prod/deploy/web".into(), ..task("deploy-web") };
    let refused = issue(&service, as_another).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
    let as_itself = pb::IssueRequest { identity: NIGHTLY.into(), ..task("post-invoices") };
    issue(&service, as_itself).await.unwrap();
}

#[tokio::test]
async fn what_needs_an_approval_is_not_issued_without_one() {
    let deployment = Deployment::start().await;
    let forge = deployment.forge(CI, "prod/deploy/web");
    let by_hand = forge.with(|_, claims| drop(claims.insert("event".into(), "workflow_dispatch".into())));
    let csr =
        rcgen::CertificateParams::default().serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let certificate = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
    let credential = Some(pb::issue_request::Credential::Certificate(certificate));
    let wanted = pb::IssueRequest { credential, ..task("migrate-web-db") };
    let refused = issue(&deployment.bound(by_hand).await, wanted).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::FailedPrecondition, "APPROVAL_REQUIRED"));
}
