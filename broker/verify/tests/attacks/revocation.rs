//! Revocation lists: where they are declared, silence is a refusal.

use daypass_verify::certificate::{CertificateError, Crls, verify_client_chain};
use rcgen::{
    CertificateRevocationListParams, CrlDistributionPoint, CrlIssuingDistributionPoint, CrlScope,
    KeyIdMethod, RevocationReason, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::authorities::{Authorities, Authority, NOW};

fn list_params(revoked: &[u8]) -> CertificateRevocationListParams {
    let revoked = (!revoked.is_empty()).then(|| RevokedCertParams {
        serial_number: SerialNumber::from_slice(revoked),
        revocation_time: date_time_ymd(2026, 12, 31),
        reason_code: Some(RevocationReason::KeyCompromise),
        invalidity_date: None,
    });
    CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 12, 31),
        next_update: date_time_ymd(2027, 1, 2),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: revoked.into_iter().collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    }
}

fn list(
    params: CertificateRevocationListParams,
    authority: &Authority,
) -> CertificateRevocationListDer<'static> {
    params.signed_by(authority).unwrap().der().clone()
}

fn serial(der: &CertificateDer<'_>) -> Vec<u8> {
    x509_parser::parse_x509_certificate(der).unwrap().1.raw_serial().to_vec()
}

fn check(
    authorities: &Authorities,
    chain: &[CertificateDer<'_>],
    lists: &[CertificateRevocationListDer<'_>],
) -> Result<(), CertificateError> {
    let crls = Crls::new(lists)?;
    verify_client_chain(chain, &authorities.anchors(), Some(&crls), NOW).map(|_| ())
}

fn scoped(scope: CrlScope) -> CertificateRevocationListParams {
    let distribution_point = CrlDistributionPoint { uris: vec!["http://crl.example/a".to_owned()] };
    let point = CrlIssuingDistributionPoint { distribution_point, scope: Some(scope) };
    CertificateRevocationListParams { issuing_distribution_point: Some(point), ..list_params(&[]) }
}

#[test]
fn a_revoked_leaf_or_intermediate_is_refused() {
    let authorities = Authorities::new();
    let chain = authorities.chain(|_| ());
    let by = |revoked_leaf: &[u8], revoked_middle: &[u8]| {
        let middle = list(list_params(revoked_leaf), &authorities.middle);
        check(&authorities, &chain, &[list(list_params(revoked_middle), &authorities.root), middle])
    };
    assert_eq!(by(&[], &[]), Ok(()));
    assert_eq!(by(&serial(&chain[0]), &[]), Err(CertificateError::Revoked));
    assert_eq!(by(&[], &serial(&chain[1])), Err(CertificateError::Revoked));
    assert_eq!(by(&serial(&chain[1]), &serial(&chain[0])), Ok(()));
}

#[test]
fn an_unknown_status_is_a_refusal() {
    let (authorities, others) = (Authorities::new(), Authorities::new());
    let chain = authorities.chain(|_| ());
    let root = || list(list_params(&[]), &authorities.root);
    let old = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 12, 30),
        next_update: date_time_ymd(2026, 12, 31),
        ..list_params(&[])
    };
    let spoiled = [
        ("no list of the leaf's issuer", vec![root()]),
        ("no list of the root", vec![list(list_params(&[]), &authorities.middle)]),
        ("a list by a namesake with another key", vec![root(), list(list_params(&[]), &others.middle)]),
        ("an old list", vec![root(), list(old, &authorities.middle)]),
        ("a list for CAs alone", vec![root(), list(scoped(CrlScope::CaCertsOnly), &authorities.middle)]),
    ];
    for (what, lists) in spoiled {
        assert_eq!(check(&authorities, &chain, &lists), Err(CertificateError::RevocationUnknown), "{what}");
    }
    let for_users = list(scoped(CrlScope::UserCertsOnly), &authorities.middle);
    let elsewhere = authorities.chain(|params| {
        let uris = vec!["http://crl.example/b".to_owned()];
        params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
    });
    let checked = check(&authorities, &elsewhere, &[root(), for_users.clone()]);
    assert_eq!(checked, Err(CertificateError::RevocationUnknown), "another distribution point");
    let several = authorities.chain(|params| {
        params.crl_distribution_points = ["b", "a"]
            .map(|name| CrlDistributionPoint { uris: vec![format!("http://crl.example/{name}")] })
            .to_vec();
    });
    assert_eq!(check(&authorities, &several, &[root(), for_users]), Ok(()), "one of several fits");
}

#[test]
fn the_newer_of_two_lists_counts() {
    let authorities = Authorities::new();
    let chain = authorities.chain(|_| ());
    let root = list(list_params(&[]), &authorities.root);
    let earlier =
        CertificateRevocationListParams { this_update: date_time_ymd(2026, 12, 30), ..list_params(&[]) };
    let earlier = list(earlier, &authorities.middle);
    let newer = list(list_params(&serial(&chain[0])), &authorities.middle);
    for lists in [[root.clone(), earlier.clone(), newer.clone()], [newer, earlier, root]] {
        assert_eq!(check(&authorities, &chain, &lists), Err(CertificateError::Revoked));
    }
}

#[test]
fn a_list_that_cannot_be_read_is_refused_when_it_is_loaded() {
    let authorities = Authorities::new();
    let good = list(list_params(&[]), &authorities.root);
    // 2.5.29.20, the list's number, becomes 2.5.29.60, which means nothing; it is not critical.
    let at = good.windows(5).position(|bytes| bytes == [6, 3, 0x55, 0x1d, 20]).unwrap();
    let mut numberless = good.to_vec();
    numberless[at + 4] = 60;
    for bad in [numberless, [&good[..], &[0]].concat(), b"junk".to_vec(), Vec::new()] {
        let refused = Crls::new(&[good.clone(), bad.into()]).unwrap_err();
        assert_eq!(refused, CertificateError::Malformed);
    }
    assert_eq!(Crls::new(&[]).unwrap_err(), CertificateError::RevocationUnknown);
}
