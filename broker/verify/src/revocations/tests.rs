use std::time::{Duration, Instant};

use super::*;

const T: i64 = 1_795_310_000_000;

fn id(at_ms: i64, last: u8) -> CredentialId {
    CredentialId::new(UnixMs::new(at_ms), [0, 0, 0, 0, 0, 0, 0, 0, 0, last])
}

fn subject(name: &str) -> SpiffeId {
    format!("spiffe://example.org/{name}").parse().unwrap()
}

#[test]
fn a_credential_is_revoked_by_its_id_or_by_what_was_issued_before_a_time_and_by_nothing_else() {
    let (own, other) = (subject("prod/x"), subject("prod/y"));
    let (issuer, ci) = ("ci".parse::<Name>().unwrap(), "cloud".parse::<Name>().unwrap());
    let (key, stolen) = (KeyId::from_thumbprint([1; 32]), KeyId::from_thumbprint([2; 32]));
    let cut_offs = CutOffs {
        identities: [(own.clone(), UnixMs::new(T))].into(),
        issuers: [(issuer.clone(), UnixMs::new(T + 5))].into(),
        keys: [(stolen.clone(), ALWAYS)].into(),
    };
    let revoked = Revoked::new(vec![id(T, 9), id(T, 7)], cut_offs);
    let shown = |id, subject, issuer, key| Shown { id, subject, issuer, key };
    for (shown, expected) in [
        (shown(id(T, 7), &other, None, None), Some(By::Id)),
        (shown(id(T, 8), &other, None, None), None),
        (shown(id(T - 1, 1), &own, None, None), Some(By::Identity)),
        (shown(id(T, 1), &own, None, None), None),
        (shown(id(T - 1, 1), &other, None, None), None),
        (shown(id(T + 4, 1), &other, Some(&issuer), None), Some(By::Issuer)),
        (shown(id(T + 5, 1), &other, Some(&issuer), None), None),
        (shown(id(T + 4, 1), &other, Some(&ci), None), None),
        (shown(id(T + 9_000_000, 1), &other, None, Some(stolen.as_str())), Some(By::Key)),
        (shown(id(T + 9_000_000, 1), &other, None, Some(key.as_str())), None),
    ] {
        assert_eq!(revoked.covers(&shown), expected, "{shown:?}");
    }
    assert!(revoked.is_complete());
}

#[test]
fn what_has_no_room_in_a_feed_is_said_to_be_missing() {
    let ids = |count: usize| (0..count).map(|n| id(T + i64::try_from(n).unwrap(), 0)).collect::<Vec<_>>();
    let full = Revoked::new(ids(IDS_MAX), CutOffs::default());
    assert!(full.is_complete() && full.ids().len() == IDS_MAX);
    let over = Revoked::new(ids(IDS_MAX + 1), CutOffs::default());
    assert!(!over.is_complete());
    assert_eq!((over.ids().len(), over.ids().first().copied()), (IDS_MAX, Some(id(T + 1, 0))));
    let identities = (0..=CUT_OFFS_MAX).map(|n| (subject(&format!("a{n}")), UnixMs::new(T))).collect();
    let over = Revoked::new(Vec::new(), CutOffs { identities, ..CutOffs::default() });
    assert!(!over.is_complete() && over.cut_offs().identities.len() == CUT_OFFS_MAX);
}

#[test]
fn looking_a_credential_up_takes_no_longer_for_all_that_a_feed_can_list() {
    let ids = (0..IDS_MAX).map(|n| id(T + 2 * i64::try_from(n).unwrap(), 0)).collect();
    let identities = (0..CUT_OFFS_MAX).map(|n| (subject(&format!("a{n}")), UnixMs::new(T))).collect();
    let revoked = Revoked::new(ids, CutOffs { identities, ..CutOffs::default() });
    let subject = subject("a7");
    let began = Instant::now();
    for n in 0..50_000 {
        let shown = Shown { id: id(T + 1 + 2 * n, 0), subject: &subject, issuer: None, key: None };
        assert_eq!(revoked.covers(&shown), None);
    }
    // 20 us each without optimisation on a busy machine; one walk over the list takes a hundred times as long.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
