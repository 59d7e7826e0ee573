use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use daypass_verify::certificate::verify_client_chain;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer as Signer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use super::*;

struct Ca {
    root: CertificateDer<'static>,
    signer: Signer<'static, KeyPair>,
    leaf: CertificateDer<'static>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        let signer = Signer::new(params, key);
        let mut params = CertificateParams::default();
        params.serial_number = Some(SerialNumber::from_slice(&[7]));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI("spiffe://acme.example/a".try_into().unwrap())];
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), &signer).unwrap().der().clone();
        Self { root, signer, leaf }
    }

    fn declared(&self, crl_file: Option<&std::path::Path>) -> Issuer {
        declare(IssuerKind::ClientCa {
            ca: vec![STANDARD.encode(&self.root)],
            trust_domain: None,
            crl_file: crl_file.map(|it| it.to_str().unwrap().to_owned()),
        })
    }

    fn crl(&self, number: u8, revoked: &[u8]) -> String {
        let now = OffsetDateTime::now_utc();
        let revoke = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&[*serial]),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - time::Duration::minutes(i64::from(100 - number)),
            next_update: now + time::Duration::hours(1),
            crl_number: SerialNumber::from_slice(&[number]),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(revoke).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.signer).unwrap().pem().unwrap()
    }

    fn accepts(&self, keys: &IssuerKeys) -> bool {
        let IssuerKeys::Ca { anchors, crls } = keys else { return false };
        let chain = std::slice::from_ref(&self.leaf);
        verify_client_chain(chain, anchors, crls.as_deref(), SystemClock.now()).is_ok()
    }
}

/// No chain of such a CA is believed where it is declared with lists.
fn without_lists(keys: &IssuerKeys) -> bool {
    matches!(keys, IssuerKeys::Ca { crls: None, .. })
}

#[tokio::test]
async fn a_client_ca_is_known_at_once_and_junk_never_is() {
    let (mut world, ca) = (World::unfollowed(limits()).await, Ca::new());
    let junk = |text: &str| {
        let ca = vec![text.to_owned()];
        declare(IssuerKind::ClientCa { ca, trust_domain: None, crl_file: None })
    };
    world.trust.follow_issuers(&issuers([
        ("good", ca.declared(None)),
        ("no-base64", junk("?")),
        ("no-certificate", junk("AAAA")),
        ("no-ca", junk(&STANDARD.encode(&ca.leaf))),
    ]));
    assert!(ca.accepts(&world.keys("good")));
    for refused in ["no-base64", "no-certificate", "no-ca"] {
        assert!(matches!(world.keys(refused), IssuerKeys::Unavailable), "{refused}");
    }
    assert_eq!(world.codes(), ["ISSUER_REFUSED"; 3]);
}

#[tokio::test]
async fn a_ca_with_revocation_lists_is_never_believed_without_them() {
    let limits = FetchLimits { crl_every: Duration::from_millis(20), ..limits() };
    let (mut world, ca) = (World::unfollowed(limits).await, Ca::new());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("crl.pem");
    // Whole files replace each other, as a careful publisher does it.
    let publish = |text: &str| {
        std::fs::write(directory.path().join("new"), text).unwrap();
        std::fs::rename(directory.path().join("new"), &file).unwrap();
    };
    world.trust.follow_issuers(&issuers([("ca", ca.declared(Some(&file)))]));
    assert!(without_lists(&world.keys("ca")), "its roots tell its chains from those of others");
    assert_eq!(world.codes(), ["CRL_REFUSED"]);

    publish(&ca.crl(1, &[]));
    world.wait(|| !without_lists(&world.keys("ca"))).await;
    assert!(ca.accepts(&world.keys("ca")));
    assert_eq!(world.events(), [TrustEvent::CrlRestored { issuer: name("ca") }]);

    publish("junk");
    let told = timeout(Duration::from_secs(5), world.events.recv()).await.unwrap();
    assert!(matches!(told, Some(TrustEvent::CrlRefused { .. })));
    assert!(ca.accepts(&world.keys("ca")), "the last good lists are used on");

    publish(&ca.crl(2, &[7]));
    world.wait(|| !ca.accepts(&world.keys("ca"))).await;
    assert!(!without_lists(&world.keys("ca")));
}

#[tokio::test]
async fn a_revocation_file_that_is_no_file_is_refused_without_waiting_for_it() {
    let mut world = World::unfollowed(limits()).await;
    for path in ["/dev/zero", "/", "/nowhere/crl.pem"] {
        let ca = Ca::new();
        world.trust.follow_issuers(&issuers([("ca", ca.declared(Some(path.as_ref())))]));
        assert!(without_lists(&world.keys("ca")), "{path}");
        assert_eq!(world.codes(), ["CRL_REFUSED"], "{path}");
    }
}
