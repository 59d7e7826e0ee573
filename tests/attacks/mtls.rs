//! Client certificates of the organisation's own workload CA, each with one thing that its CA should not have signed.

use daypass_broker::clock::Clock as _;
use daypass_broker::dev::caller::{Caller, possession};
use daypass_broker::dev::workload_ca::{WorkloadCa, WorkloadCertificate};
use daypass_tests::harness::{CI, Deployment, NIGHTLY, TRUST_DOMAIN, issue, spiffe_id, task};
use daypass_verify::time::Seconds;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose as Eku, IsCa,
    KeyUsagePurpose as Ku, SanType,
};
use tonic::Code;

type Spoil = fn(&mut CertificateParams);

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn odd(deployment: &Deployment, spoil: impl FnOnce(&mut CertificateParams)) -> WorkloadCertificate {
    let now = deployment.clock.now();
    deployment.organisation.workloads.issue_odd(&spiffe_id(NIGHTLY), now, Seconds::new(3600), spoil).unwrap()
}

/// How a call with this certificate ends: `issued`, `handshake` where no HTTP was spoken, or else what an operator is
/// told of it.
async fn outcome(deployment: &Deployment, certificate: &WorkloadCertificate) -> String {
    let connected =
        Caller::connect(deployment.broker().api.port(), &deployment.listener_ca, Some(certificate)).await;
    let Ok(caller) = connected else { return "handshake".into() };
    let Err(refused) = issue(&caller, task("post-invoices")).await else { return "issued".into() };
    if refused.request_id.is_empty() {
        return "handshake".into();
    }
    assert_eq!(
        (refused.code, refused.reason.as_str()),
        (Code::Unauthenticated, "PROOF_REFUSED"),
        "{refused:?}"
    );
    deployment.explain(&refused.request_id).await.reason
}

const SPOILED: &[(&str, &str, Spoil)] = &[
    ("for servers only", "EXTENDED_KEY_USAGE", |it| it.extended_key_usages = vec![Eku::ServerAuth]),
    ("for anything", "EXTENDED_KEY_USAGE", |it| it.extended_key_usages = vec![Eku::Any]),
    ("for clients and anything", "EXTENDED_KEY_USAGE", |it| {
        it.extended_key_usages = vec![Eku::ClientAuth, Eku::Any]
    }),
    ("for signing code", "EXTENDED_KEY_USAGE", |it| it.extended_key_usages = vec![Eku::CodeSigning]),
    ("for no stated use", "EXTENDED_KEY_USAGE", |it| it.extended_key_usages.clear()),
    ("may sign certificates", "KEY_USAGE", |it| it.key_usages.push(Ku::KeyCertSign)),
    ("may sign revocation lists", "KEY_USAGE", |it| it.key_usages.push(Ku::CrlSign)),
    ("may not sign", "KEY_USAGE", |it| it.key_usages = vec![Ku::KeyEncipherment]),
    ("no key usage at all", "KEY_USAGE", |it| it.key_usages.clear()),
    ("a CA", "LEAF_IS_CA", |it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
    ("no name", "BAD_SPIFFE_ID", |it| it.subject_alt_names.clear()),
    ("a DNS name instead", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![SanType::DnsName("nightly.example.org".try_into().unwrap())];
    }),
    ("its name in the common name alone", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names.clear();
        it.distinguished_name.push(DnType::CommonName, "spiffe://example.org/prod/billing/nightly");
    }),
    ("two workloads", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names.push(uri("spiffe://example.org/prod/deploy/web"))
    }),
    ("a workload and a web page", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names.push(uri("https://example.org/"))
    }),
    ("a web page", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri("https://example.org/prod/billing/nightly")]
    }),
    ("`..` in its path", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri("spiffe://example.org/prod/x/../billing/nightly")]
    }),
    ("an empty segment", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri("spiffe://example.org/prod//billing/nightly")]
    }),
    ("a slash at its end", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri("spiffe://example.org/prod/billing/nightly/")]
    }),
    ("an escaped letter", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri("spiffe://example.org/prod/billing/%6eightly")]
    }),
    ("a port", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri("spiffe://example.org:443/prod/billing/nightly")]
    }),
    ("a user", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri("spiffe://me@example.org/prod/billing/nightly")]
    }),
    ("a query", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri("spiffe://example.org/prod/billing/nightly?x=1")]
    }),
    ("a fragment", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri("spiffe://example.org/prod/billing/nightly#x")]
    }),
    ("no path", "BAD_SPIFFE_ID", |it| it.subject_alt_names = vec![uri("spiffe://example.org")]),
    ("2,049 bytes", "BAD_SPIFFE_ID", |it| {
        it.subject_alt_names = vec![uri(&format!("spiffe://example.org/{}", "a".repeat(2028)))];
    }),
    ("another trust domain", "FOREIGN_TRUST_DOMAIN", |it| {
        it.subject_alt_names = vec![uri("spiffe://example.com/prod/billing/nightly")];
    }),
    ("a part of our trust domain", "FOREIGN_TRUST_DOMAIN", |it| {
        it.subject_alt_names = vec![uri("spiffe://eu.example.org/prod/billing/nightly")];
    }),
    ("something critical that nobody knows", "handshake", |it| {
        let mut unknown = CustomExtension::from_oid_content(&[2, 25, 4711], vec![5, 0]);
        unknown.set_criticality(true);
        it.custom_extensions.push(unknown);
    }),
    ("ended an hour ago", "EXPIRED", |it| {
        let hour = it.not_after - it.not_before;
        (it.not_before, it.not_after) = (it.not_before - hour * 2, it.not_after - hour * 2);
    }),
    ("begins in an hour", "NOT_YET_VALID", |it| {
        let hour = it.not_after - it.not_before;
        (it.not_before, it.not_after) = (it.not_before + hour, it.not_after + hour);
    }),
];

#[tokio::test]
async fn a_client_certificate_is_for_one_workload_that_is_a_client() {
    let deployment = Deployment::start().await;
    let mut wrong = Vec::new();
    for (what, inner, spoil) in SPOILED {
        let outcome = outcome(&deployment, &odd(&deployment, spoil)).await;
        if outcome != *inner {
            wrong.push(format!("{what}: {outcome} instead of {inner}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(outcome(&deployment, &odd(&deployment, |_| {})).await, "issued", "the good one");
}

#[tokio::test]
async fn a_certificate_of_a_ca_that_is_not_declared_is_no_proof() {
    let deployment = Deployment::start().await;
    let now = deployment.clock.now();
    let namesake = WorkloadCa::new(&TRUST_DOMAIN.parse().unwrap(), now).unwrap();
    let certificate = namesake.issue(&spiffe_id(NIGHTLY), now, Seconds::new(3600)).unwrap();
    assert_eq!(
        outcome(&deployment, &certificate).await,
        "UNKNOWN_ISSUER",
        "a CA of the same name with another key"
    );

    let mut chain = odd(&deployment, |_| {});
    chain.chain.push(namesake.root().clone());
    let answer = issue(&deployment.connect(Some(&chain)).await, task("post-invoices")).await;
    assert!(answer.is_ok(), "what else is sent does not matter: {answer:?}");
}

#[tokio::test]
async fn a_workload_that_vouches_for_another_is_refused() {
    let deployment = Deployment::start().await;
    let workload = odd(&deployment, |_| {});
    let key =
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&workload.key, &rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut own = CertificateParams::default();
    own.distinguished_name = rcgen::DistinguishedName::new();
    let issuer = rcgen::Issuer::new(own, key);
    let leaf_key = rcgen::KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("spiffe://example.org/prod/deploy/web")];
    params.extended_key_usages = vec![Eku::ClientAuth];
    params.key_usages = vec![Ku::DigitalSignature];
    let leaf = params.signed_by(&leaf_key, &issuer).unwrap();
    let chain = vec![leaf.der().clone(), workload.chain[0].clone()];
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(leaf_key.serialize_der());
    assert_eq!(outcome(&deployment, &WorkloadCertificate { chain, key }).await, "ISSUER_NOT_CA");
}

#[tokio::test]
async fn certificate_and_token_of_one_call_are_of_one_identity() {
    let deployment = Deployment::start().await;
    let nightly = deployment.workload(NIGHTLY);
    let token = |who: &str| deployment.organisation.token(CI, who).unwrap();
    let both = deployment.connect(Some(&nightly)).await.with_token(token(NIGHTLY));
    issue(&both, task("post-invoices")).await.expect("both are the nightly run's");
    let torn = deployment.connect(Some(&nightly)).await.with_token(token("prod/deploy/web"));
    for wanted in ["post-invoices", "deploy-web"] {
        let refused = issue(&torn, task(wanted)).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::Unauthenticated, "PROOF_REFUSED"),
            "{wanted}"
        );
    }
}

#[tokio::test]
async fn a_certificate_in_a_header_is_nobodys() {
    let deployment = Deployment::start().await;
    let nightly = deployment.workload(NIGHTLY);
    let encoded = nightly.chain_pem().replace('\r', "").replace('\n', "%0A");
    for name in ["x-forwarded-client-cert", "x-tls-client-cert", "x-ssl-client-cert", "client-cert"] {
        for caller in [deployment.connect(None).await, deployment.connect(Some(&possession().unwrap())).await]
        {
            let mut request = caller.request(task("post-invoices")).unwrap();
            request.metadata_mut().insert(name, encoded.parse().unwrap());
            let status = caller.credentials().issue(request).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{name}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_was_issued_here_is_no_proof() {
    let deployment = Deployment::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let certificate =
        daypass_proto::v1::CertificateParameters { csr: csr.der().to_vec().into(), ..Default::default() };
    let credential = Some(daypass_proto::v1::issue_request::Credential::Certificate(certificate));
    let wanted = daypass_proto::v1::IssueRequest { credential, ..task("ledger-db") };
    let answer = issue(&deployment.service().await, wanted).await.unwrap();
    let chain = daypass_tests::harness::certificate_of(&answer);
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    assert_eq!(outcome(&deployment, &WorkloadCertificate { chain, key }).await, "UNKNOWN_ISSUER");
}
