//! Requests for certificates: only the key is taken, and only from who has it.

use daypass_proto::v1 as pb;
use daypass_proto::v1::issue_request::Credential as Wanted;
use daypass_tests::harness::{Answer, Deployment, certificate_of, issue, run_with, task};
use rcgen::{
    CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, KeyPair, PublicKeyData as _, SanType,
};
use tonic::Code;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate};

async fn ask(deployment: &Deployment, csr: impl Into<Vec<u8>>) -> Answer {
    let certificate = pb::CertificateParameters { csr: csr.into().into(), ..Default::default() };
    let credential = Some(Wanted::Certificate(certificate));
    issue(&deployment.service().await, pb::IssueRequest { credential, ..task("ledger-db") }).await
}

fn plain(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

#[tokio::test]
async fn whatever_a_request_asks_for_is_not_in_the_certificate() {
    let deployment = Deployment::start().await;
    let mut params = CertificateParams::default();
    for name in ["admin", "*.x", "a,CN=root", "a/CN=root", "a\nb", &"n".repeat(65)] {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.subject_alt_names = vec![
        SanType::DnsName("admin.example.org".try_into().unwrap()),
        SanType::IpAddress([127, 0, 0, 1].into()),
        SanType::Rfc822Name("root@example.org".try_into().unwrap()),
        SanType::URI("spiffe://example.org/prod/deploy/web".try_into().unwrap()),
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning, ExtendedKeyUsagePurpose::Any];
    params.custom_extensions =
        vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 24], vec![0x30, 3, 2, 1, 5])];
    let key = KeyPair::generate().unwrap();
    let csr = params.serialize_request(&key).unwrap();
    let answer = ask(&deployment, csr.der().to_vec()).await.unwrap();

    let chain = certificate_of(&answer);
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(leaf.subject().to_string(), "CN=billing_nightly");
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    let own = GeneralName::URI("spiffe://example.org/prod/billing/nightly");
    assert!(names.contains(&own), "{names:?}");
    let asked =
        |name: &&GeneralName<'_>| matches!(name, GeneralName::IPAddress(_) | GeneralName::RFC822Name(_));
    assert_eq!(names.iter().filter(asked).count(), 0, "{names:?}");
    let uris = names.iter().filter(|name| matches!(name, GeneralName::URI(_))).count();
    assert_eq!(uris, 1, "{names:?}");
    assert!(!format!("{names:?}").contains("admin"), "{names:?}");
}

#[tokio::test]
async fn a_certificate_is_for_a_client_and_nothing_else() {
    let deployment = Deployment::start().await;
    let answer = ask(&deployment, plain(&KeyPair::generate().unwrap())).await.unwrap();
    let chain = certificate_of(&answer);
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && !extended.any && !extended.code_signing && !extended.ocsp_signing);
    assert!(leaf.basic_constraints().unwrap().is_none_or(|constraints| !constraints.value.ca));
    assert!(leaf.raw_serial().len() <= 20 && leaf.raw_serial().len() >= 8);
    let validity = leaf.validity();
    assert!(validity.not_after.timestamp() - validity.not_before.timestamp() <= 30 * 60 + 60);
    let identifiers = leaf.extensions().iter().filter(|it| {
        matches!(
            it.parsed_extension(),
            ParsedExtension::AuthorityKeyIdentifier(_) | ParsedExtension::SubjectKeyIdentifier(_)
        )
    });
    assert_eq!(identifiers.count(), 2);
}

async fn openssl(arguments: &[&str]) -> Vec<u8> {
    let ended = run_with("openssl", arguments, b"").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let der = pem::parse(&ended.stdout).unwrap();
    der.into_contents()
}

async fn weak(key: &[&str]) -> Vec<u8> {
    openssl(&[&["req", "-new", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x", "-newkey"], key].concat())
        .await
}

#[tokio::test]
async fn a_request_that_is_not_its_keys_own_is_refused() {
    let deployment = Deployment::start().await;
    let (mine, theirs) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let good = plain(&mine);
    let (own, other) = (mine.subject_public_key_info(), theirs.subject_public_key_info());
    let with_key = |spki: &[u8]| {
        let at = good.windows(own.len()).position(|window| window == own).unwrap();
        [&good[..at], spki, &good[at + own.len()..]].concat()
    };
    let ca = certificate_of(&ask(&deployment, good.clone()).await.unwrap())[1].clone();
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let rows = [
        ("nothing", Vec::new()),
        ("text", b"-----BEGIN CERTIFICATE REQUEST-----".to_vec()),
        ("its last byte missing", good[..good.len() - 1].to_vec()),
        ("a byte more", [&good[..], &[0]].concat()),
        ("its last bit flipped", flipped),
        ("somebody else's key", with_key(&other)),
        ("the key of our CA", with_key(ca.public_key().raw)),
        ("9 KiB", [&good[..], &vec![0; 9 * 1024]].concat()),
        ("RSA of 1024 bits", weak(&["rsa:1024", "-sha256"]).await),
        ("P-521", weak(&["ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"]).await),
        ("secp256k1", weak(&["ec", "-pkeyopt", "ec_paramgen_curve:secp256k1"]).await),
        (
            "explicit parameters",
            weak(&["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-pkeyopt", "ec_param_enc:explicit"])
                .await,
        ),
        ("SHA-1", weak(&["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-sha1"]).await),
    ];
    for (what, csr) in rows {
        let refused = ask(&deployment, csr).await.unwrap_err();
        assert_eq!(
            (refused.code, refused.reason.as_str()),
            (Code::InvalidArgument, "CSR_REFUSED"),
            "{what}: {refused:?}"
        );
        assert_eq!(refused.fields, ["certificate.csr"], "{what}");
    }
    let entries = deployment.entries().await;
    assert_eq!(entries.iter().filter(|(_, entry)| entry.envelope.kind == "credential.issued").count(), 1);
}

#[tokio::test]
async fn keys_of_every_accepted_kind_are_certified() {
    let deployment = Deployment::start().await;
    let rows = [
        ("P-256", plain(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap())),
        ("P-384", plain(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap())),
        ("Ed25519", plain(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap())),
        ("RSA of 2048 bits", weak(&["rsa:2048", "-sha256"]).await),
    ];
    for (what, csr) in rows {
        assert!(ask(&deployment, csr).await.is_ok(), "{what}");
    }
}
