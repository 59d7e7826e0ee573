//! Who may revoke what.

use daypass_proto::v1 as pb;
use daypass_proto::v1::selector::What;
use daypass_tests::harness::{Deployment, NIGHTLY, OPERATOR, STAFF, certificate_of, issue, task, token_of};
use daypass_verify::ids::Digest;
use rcgen::{CertificateParams, KeyPair};
use tonic::Code;

use super::{ended, endings, index_of, order, revoke};

#[tokio::test]
async fn a_holder_ends_what_is_its_own_however_it_names_it_and_nothing_else() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let other = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let others = issue(&deployment.bound(other).await, task("mesh-identity")).await.unwrap();
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let wanted = pb::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
    let wanted = pb::issue_request::Credential::Certificate(wanted);
    let wanted = pb::IssueRequest { credential: Some(wanted), ..task("ledger-db") };

    let mut expected = Vec::new();
    let first = issue(&service, task("post-invoices")).await.unwrap();
    let second = issue(&service, task("post-invoices")).await.unwrap();
    let third = issue(&service, task("post-invoices")).await.unwrap();
    let fourth = issue(&service, wanted).await.unwrap();
    let fifth = issue(&service, task("post-invoices")).await.unwrap();
    let der = certificate_of(&fourth).first().unwrap().to_vec();
    deployment
        .entry("the settlement of the third", |entry| {
            let digest = Digest::of(token_of(&third).as_bytes()).to_string();
            matches!(&entry.body, daypass_evidence::entry::Body::CredentialSettled(settled)
            if settled.released.iter().any(|(_, it, _)| it.to_string() == digest))
            .then_some(())
        })
        .await;
    for (answer, what) in [
        (&first, What::CredentialId(first.credential_id.clone())),
        (&second, What::Token(token_of(&second).into())),
        (&third, What::Digest(Digest::of(token_of(&third).as_bytes()).as_bytes().to_vec().into())),
        (&fourth, What::Certificate(der.into())),
        (&fifth, What::Identity(NIGHTLY.into())),
    ] {
        let revoked = revoke(&service, order(what.clone())).await.unwrap();
        assert_eq!(
            (revoked.count, revoked.credential_ids.as_slice()),
            (1, [answer.credential_id.clone()].as_slice())
        );
        expected.push(index_of(answer));
        assert_eq!(ended(&deployment).await, expected);
        let again = revoke(&service, order(what)).await.unwrap();
        assert_eq!((again.count, again.entry), (0, None), "it ends once");
    }
    assert!(endings(&deployment).await.iter().all(|(_, by, _)| by.as_deref() == Some(NIGHTLY)));

    let mut changed = token_of(&second).to_owned();
    let at = changed.find('.').unwrap() + 20;
    let byte = if changed.as_bytes()[at] == b'A' { "B" } else { "A" };
    changed.replace_range(at..=at, byte);
    for (what, reason) in [
        (What::CredentialId(others.credential_id.clone()), "NOT_FOUND"),
        (What::CredentialId("0199f2c1-0000-7000-8000-000000000000".into()), "NOT_FOUND"),
        (What::Token(changed), "NOT_FOUND"),
        (What::Certificate(vec![0x30, 0].into()), "NOT_FOUND"),
        (What::Digest(vec![7; 32].into()), "NOT_FOUND"),
        (What::Digest(vec![7; 31].into()), "MALFORMED"),
        (What::Identity("prod/web/frontend".into()), "NOT_ALLOWED"),
        (What::Task("mesh-identity".into()), "NOT_ALLOWED"),
        (What::Target("mesh".into()), "NOT_ALLOWED"),
        (What::Supplier("acme".into()), "NOT_ALLOWED"),
        (What::Issuer("cluster".into()), "NOT_ALLOWED"),
        (What::KeyId("a".repeat(43)), "NOT_ALLOWED"),
        (What::Everything(true), "MALFORMED"),
    ] {
        let refused = revoke(&service, order(what.clone())).await.unwrap_err();
        assert_eq!(refused.reason, reason, "{what:?}: {refused:?}");
    }
    assert_eq!(ended(&deployment).await, expected, "what is refused ends nothing");
}

#[tokio::test]
async fn whoever_is_neither_holder_nor_operator_revokes_nothing() {
    let deployment = Deployment::start().await;
    let issued = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let ours = || order(What::CredentialId(issued.credential_id.clone()));
    let stranger = deployment.connect(None).await;
    assert_eq!(revoke(&stranger, ours()).await.unwrap_err().code, Code::Unauthenticated);
    // People who log in as nobody's operator.
    let token = deployment.forge(STAFF, OPERATOR).with(|_, claims| {
        claims.insert("sub".into(), "p-9999".into());
    });
    let refused = revoke(&deployment.bearer(token).await, ours()).await.unwrap_err();
    assert_eq!(refused.reason, "NOT_ALLOWED", "{refused:?}");
    assert!(ended(&deployment).await.is_empty());
}

#[tokio::test]
async fn an_order_without_a_reason_or_a_selector_is_refused_by_its_field() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let good = order(What::Identity(NIGHTLY.into()));
    for (wrong, field) in [
        (pb::RevokeRequest { reason: 0, ..good.clone() }, "reason"),
        (pb::RevokeRequest { reason: 77, ..good.clone() }, "reason"),
        (pb::RevokeRequest { selector: None, ..good.clone() }, "selector"),
        (pb::RevokeRequest { selector: Some(pb::Selector::default()), ..good.clone() }, "selector"),
        (pb::RevokeRequest { comment: "a\nb".into(), ..good.clone() }, "comment"),
        (pb::RevokeRequest { comment: "a".repeat(513), ..good.clone() }, "comment"),
        (pb::RevokeRequest { drill: "a".repeat(129), ..good.clone() }, "drill"),
        (order(What::Identity("UPPER".into())), "selector.identity"),
        (order(What::CredentialId("first".into())), "selector.credential_id"),
        (order(What::Instance(String::new())), "selector.instance"),
        (order(What::Everything(false)), "selector.everything"),
    ] {
        let refused = revoke(&service, wrong).await.unwrap_err();
        assert_eq!(
            (refused.reason.as_str(), refused.code),
            ("MALFORMED", Code::InvalidArgument),
            "{refused:?}"
        );
        assert!(refused.message.contains(&format!("`{field}`")), "{field}: {refused:?}");
    }
}
