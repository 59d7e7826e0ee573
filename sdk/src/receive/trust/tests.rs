use daypass_verify::ids::CredentialId;
use daypass_verify::revocations::{CutOffs, IDS_MAX, Known, Revoked};
use daypass_verify::time::{Seconds, UnixMs};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls_pki_types::CertificateDer;

use super::*;
use crate::clock::SystemClock;
use crate::verify::tests::credentials::{Authority, ISSUER, Minter, claims, holder};
use crate::verify::tests::{NOW, SUBJECT, id};

fn config(feed: Feed) -> ReceiverConfig {
    let audience = "https://ledger.example.org".parse().unwrap();
    let config =
        ReceiverConfig::new(ISSUER.parse().unwrap(), Vec::new(), "example.org".parse().unwrap(), audience);
    ReceiverConfig { feed, clock: Arc::new(SystemClock), ..config }
}

const fn at(ms: i64) -> Moment {
    Moment { wall: NOW.plus_millis(ms), boot_ms: ms }
}

fn published(minter: &Minter) -> Arc<Published> {
    Arc::new(minter.published.clone())
}

/// A feed as a broker signs it, read back.
fn feed(minter: &Minter, revoked: Revoked) -> Revocations {
    let input = Revocations::new(revoked, 1, NOW).signing_input(ISSUER, "ES256", &minter.kid());
    let keys = &minter.published.token_keys;
    let known = Known { issuer: ISSUER, keys, sequence: None, now: NOW, leeway: Seconds::new(30) };
    Revocations::open(&minter.sign(input), &known).unwrap()
}

fn trust(minter: &Minter, revoked: Revoked) -> Trust {
    Trust::none(&config(Feed::Required)).with_keys(published(minter), at(0)).with_feed(feed(minter, revoked))
}

fn reason(answer: Result<Caller, Refused>) -> &'static str {
    answer.map_or_else(|refused| refused.inner_reason(), |_| "GOOD")
}

#[test]
fn a_revoked_credential_is_refused_by_its_id_and_by_a_cut_off_of_its_subject_or_key() {
    let minter = Minter::new();
    let token = minter.mint(&claims());
    let held = Presenter::Certificate(holder());
    let check = |revoked| reason(trust(&minter, revoked).token(&token, held, at(0)));
    let later = NOW.plus_millis(1);
    let of_subject =
        |at: UnixMs| CutOffs { identities: [(SUBJECT.parse().unwrap(), at)].into(), ..CutOffs::default() };
    let of_key = |at: UnixMs| CutOffs { keys: [(minter.kid(), at)].into(), ..CutOffs::default() };
    assert_eq!(check(Revoked::new(Vec::new(), CutOffs::default())), "GOOD");
    assert_eq!(check(Revoked::new(vec![id()], CutOffs::default())), "REVOKED");
    assert_eq!(check(Revoked::new(vec![CredentialId::new(NOW, [8; 10])], CutOffs::default())), "GOOD");
    assert_eq!(check(Revoked::new(Vec::new(), of_subject(later))), "REVOKED");
    assert_eq!(check(Revoked::new(Vec::new(), of_subject(NOW))), "GOOD");
    assert_eq!(check(Revoked::new(Vec::new(), of_key(later))), "REVOKED");
}

#[test]
fn what_cannot_be_judged_is_refused_as_unavailable() {
    let minter = Minter::new();
    let token = minter.mint(&claims());
    let held = Presenter::Certificate(holder());
    let none = Trust::none(&config(Feed::Required));
    assert_eq!(reason(none.token(&token, held, at(0))), "UNAVAILABLE");
    let keys_alone = none.with_keys(published(&minter), at(0));
    assert_eq!(reason(keys_alone.token(&token, held, at(0))), "UNAVAILABLE");
    let ignored = Trust::none(&config(Feed::Ignored)).with_keys(published(&minter), at(0));
    assert_eq!(reason(ignored.token(&token, held, at(0))), "GOOD");
    assert_eq!(reason(ignored.token(&token, held, at(STALE_AFTER_MS + 1))), "UNAVAILABLE");
    let whole = trust(&minter, Revoked::new(Vec::new(), CutOffs::default()));
    assert_eq!(reason(whole.token(&token, held, at(300_000))), "GOOD");
    assert_eq!(reason(whole.token(&token, held, at(331_000))), "UNAVAILABLE");
}

#[test]
fn a_feed_without_room_says_nothing_of_what_is_older_than_its_oldest() {
    let minter = Minter::new();
    let token = minter.mint(&claims());
    let held = Presenter::Certificate(holder());
    let many = |from: i64| {
        let ids = (0..=i64::try_from(IDS_MAX).unwrap())
            .map(|n| CredentialId::new(NOW.plus_millis(from + n), [1; 10]));
        Revoked::new(ids.collect(), CutOffs::default())
    };
    assert_eq!(reason(trust(&minter, many(1)).token(&token, held, at(0))), "UNAVAILABLE");
    assert_eq!(reason(trust(&minter, many(-60_000 - 10_000)).token(&token, held, at(0))), "GOOD");
}

#[test]
fn a_certificate_is_asked_for_its_end_and_the_feed_each_time() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let leaf: CertificateDer<'static> = authority.leaf(&key, |_| {});
    let peer = Peer::new(Some(&[leaf]));
    let minter = Minter::new();
    let published =
        Arc::new(Published { roots: authority.published.roots.clone(), ..(*published(&minter)).clone() });
    let trusting = |revoked| {
        Trust::none(&config(Feed::Required))
            .with_keys(published.clone(), at(0))
            .with_feed(feed(&minter, revoked))
    };
    let trust = trusting(Revoked::new(Vec::new(), CutOffs::default()));
    assert_eq!(reason(trust.certificate(&peer, at(0))), "GOOD");
    let revoked = trusting(Revoked::new(vec![id()], CutOffs::default()));
    assert_eq!(reason(revoked.certificate(&peer, at(0))), "REVOKED");
    let late = Moment { wall: NOW.plus(Seconds::new(602)), boot_ms: 0 };
    let ignoring = Trust::none(&config(Feed::Ignored)).with_keys(published.clone(), at(0));
    assert_eq!(reason(ignoring.certificate(&peer, late)), "EXPIRED");
    let others = Arc::new(Published { roots: Authority::new().published.roots, ..(*published).clone() });
    assert_eq!(reason(trust.with_keys(others, at(0)).certificate(&peer, at(0))), "UNKNOWN_ISSUER");
    assert_eq!(reason(trust.certificate(&Peer::new(None), at(0))), "NO_CREDENTIAL");
}

#[test]
fn a_service_is_verified_by_its_usage_end_roots_trust_domain_and_the_feed() {
    let authority = Authority::new();
    let key = KeyPair::generate().unwrap();
    let server =
        |it: &mut CertificateParams| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let good = authority.leaf(&key, server);
    let client_alone = authority.leaf(&key, |_| {});
    let any = authority.leaf(&key, |it| it.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    let foreign = authority.leaf(&key, |it| {
        server(it);
        let id = "spiffe://example.com/prod/billing/nightly".try_into().unwrap();
        it.subject_alt_names = vec![SanType::URI(id)];
    });
    let two = authority.leaf(&key, |it| {
        server(it);
        it.subject_alt_names.push(SanType::URI("spiffe://example.org/x".try_into().unwrap()));
    });
    let stranger = Authority::new().leaf(&key, server);
    let minter = Minter::new();
    let roots = authority.published.roots.clone();
    let published = Arc::new(Published { roots, ..(*published(&minter)).clone() });
    let trusting = |revoked| {
        let none = Trust::none(&config(Feed::Required)).with_keys(published.clone(), at(0));
        none.with_feed(feed(&minter, revoked))
    };
    let nothing = trusting(Revoked::new(Vec::new(), CutOffs::default()));
    let revoked = trusting(Revoked::new(vec![id()], CutOffs::default()));
    let ignoring = Trust::none(&config(Feed::Ignored)).with_keys(published.clone(), at(0));
    let unfed = Trust::none(&config(Feed::Required)).with_keys(published.clone(), at(0));
    let late = Moment { wall: NOW.plus(Seconds::new(602)), boot_ms: 0 };
    let early = Moment { wall: NOW.minus(Seconds::new(60)), boot_ms: 0 };
    for (what, trust, leaf, now, expected) in [
        ("a good one", &nothing, &good, at(0), "GOOD"),
        ("one for clients alone", &nothing, &client_alone, at(0), "EXTENDED_KEY_USAGE"),
        ("one for anything", &nothing, &any, at(0), "EXTENDED_KEY_USAGE"),
        ("one of another trust domain", &nothing, &foreign, at(0), "BAD_TRUST_DOMAIN"),
        ("one with two names", &nothing, &two, at(0), "BAD_SPIFFE_ID"),
        ("another root's", &nothing, &stranger, at(0), "UNKNOWN_ISSUER"),
        ("one that is over", &ignoring, &good, late, "EXPIRED"),
        ("one of tomorrow", &ignoring, &good, early, "NOT_YET_VALID"),
        ("a revoked one", &revoked, &good, at(0), "REVOKED"),
        ("without a feed", &unfed, &good, at(0), "UNAVAILABLE"),
    ] {
        let said = trust.service(std::slice::from_ref(leaf), now);
        let said = said.as_ref().map_or_else(Refused::inner_reason, |id| {
            assert_eq!(id.to_string(), SUBJECT);
            "GOOD"
        });
        assert_eq!(said, expected, "{what}");
    }
    assert!(nothing.service(&[], at(0)).is_err(), "nothing was shown");
}
