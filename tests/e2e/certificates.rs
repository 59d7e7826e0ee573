//! Certificates: both profiles, and what becomes of what a request for one says.

use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_tests::harness::{Deployment, certificate_of, issue, task};
use daypass_verify::certificate::TrustAnchors;
use daypass_verify::credential::{VerifiedCertificate, verify_certificate};
use rcgen::{CertificateParams, KeyPair};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A request for `name` with a certificate of this profile, for a fresh key.
fn wanted(name: &str, profile: pb::CertificateProfile) -> pb::IssueRequest {
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let certificate = pb::CertificateParameters { profile: profile.into(), csr: csr.der().to_vec().into() };
    pb::IssueRequest { credential: Some(Wanted::Certificate(certificate)), ..task(name) }
}

fn verified(deployment: &Deployment, answer: &pb::IssueResponse) -> VerifiedCertificate {
    let anchors = TrustAnchors::new(vec![deployment.root.clone()]).unwrap();
    let now = daypass_broker::clock::Clock::now(deployment.clock.as_ref());
    let domain = daypass_tests::harness::TRUST_DOMAIN.parse().unwrap();
    verify_certificate(&certificate_of(answer), &anchors, None, &domain, now).unwrap()
}

#[tokio::test]
async fn an_x509_svid_names_its_workload_and_its_task() {
    let deployment = Deployment::start().await;
    let token = deployment.organisation.token("cluster", "prod/web/frontend").unwrap();
    let caller = deployment.bound(token).await;
    let answer = issue(&caller, wanted("mesh-identity", pb::CertificateProfile::X509Svid)).await.unwrap();
    let certificate = verified(&deployment, &answer);
    assert_eq!(certificate.subject, daypass_tests::harness::spiffe_id("prod/web/frontend"));
    assert_eq!(certificate.credential_id.to_string(), answer.credential_id);
    assert_eq!(certificate.task.identifier, "mesh-identity".parse().unwrap());
    let chain = certificate_of(&answer);
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let names = format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value.general_names);
    assert!(names.contains("web.mesh.example.org"), "{names}");
    assert_eq!(chain.len(), 2, "leaf and issuing CA, without the root");
}

#[tokio::test]
async fn a_common_name_is_the_tasks_own() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let answer = issue(&service, wanted("ledger-db", pb::CertificateProfile::Unspecified)).await.unwrap();
    assert_eq!(
        verified(&deployment, &answer).subject,
        daypass_tests::harness::spiffe_id("prod/billing/nightly")
    );
    let chain = certificate_of(&answer);
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(leaf.subject().to_string(), "CN=billing_nightly");
}

#[tokio::test]
async fn a_kind_that_the_task_does_not_declare_is_refused() {
    let deployment = Deployment::start().await;
    let service = deployment.service().await;
    let table = [
        ("a certificate for a task of tokens", wanted("post-invoices", pb::CertificateProfile::Unspecified)),
        ("another profile than the task's", wanted("ledger-db", pb::CertificateProfile::X509Svid)),
        ("a token for a task of certificates", task("ledger-db")),
    ];
    for (what, wanted) in table {
        let refused = issue(&service, wanted).await.unwrap_err();
        assert_eq!(refused.reason, "TASK_NOT_ALLOWED", "{what}: {refused:?}");
    }
}
