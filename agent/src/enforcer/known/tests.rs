use super::*;

const CA: &str = "/O=example.org/CN=Daypass issuing CA";

fn at(seconds: i64) -> UnixMs {
    UnixMs::from_seconds(1_795_310_000 + seconds)
}

fn id(drawn: i64) -> CredentialId {
    CredentialId::new(at(drawn), [7; 10])
}

fn session(serial: String, since: i64) -> Session {
    let (role, issuer) = ("billing_nightly".into(), CA.into());
    Session { pid: 42, role, serial, issuer, began: at(since), since: at(since) }
}

fn serial(id: CredentialId) -> String {
    u128::from_be_bytes(*id.as_bytes()).to_string()
}

/// One credential that lives for a minute, and all told at second 0.
fn known() -> Known {
    let mut known = Known { issuers: Issuers::named(CA), ..Known::default() };
    known.lives(id(-5), at(60));
    known.told(at(0));
    known
}

#[test]
fn a_session_lives_as_long_as_its_credential_and_not_a_moment_longer() {
    let (known, session) = (known(), session(serial(id(-5)), 1));
    assert_eq!(known.verdict(&session, at(1)), Verdict::Lives(id(-5)));
    assert_eq!(known.verdict(&session, at(60).plus_millis(-1)), Verdict::Lives(id(-5)));
    assert_eq!(known.verdict(&session, at(60)), Verdict::Ended(id(-5), How::Expired, at(60)));
}

#[test]
fn what_was_revoked_has_ended_also_where_it_is_told_twice_or_in_another_order() {
    let (mut known, session) = (known(), session(serial(id(-5)), 1));
    known.ended(id(-5), How::Revoked, at(3));
    let ended = Verdict::Ended(id(-5), How::Revoked, at(3));
    assert_eq!(known.verdict(&session, at(4)), ended);
    known.lives(id(-5), at(60));
    known.ended(id(-5), How::Revoked, at(9));
    assert_eq!(known.verdict(&session, at(10)), ended);
    assert_eq!(known.live(), 0);
}

#[test]
fn a_certificate_of_another_ca_is_left_alone_even_with_a_serial_of_ours() {
    let known = known();
    for issuer in ["/CN=others", "", "/O=example.org/CN=Daypass issuing CA "] {
        let session = Session { issuer: issuer.into(), ..session(serial(id(-5)), 1) };
        assert_eq!(known.verdict(&session, at(4_000)), Verdict::Others, "{issuer}");
    }
}

#[test]
fn a_serial_that_nobody_issued_is_ended_once_the_broker_has_had_its_say() {
    let mut known = known();
    let fresh = session(serial(id(20)), 21);
    assert_eq!(known.verdict(&fresh, at(22)), Verdict::Unclear, "its entry may be on its way");
    assert!(!known.must_ask(&fresh, at(25)) && known.must_ask(&fresh, at(31)));
    known.told(at(31));
    assert_eq!(known.verdict(&fresh, at(32)), Verdict::Unknown(Some(id(20))));
    known.lives(id(20), at(90));
    assert_eq!(known.verdict(&fresh, at(32)), Verdict::Lives(id(20)), "told after all");
    let odd = session("7".into(), 21);
    assert_eq!(known.verdict(&odd, at(32)), Verdict::Unknown(None));
    let old = session(serial(id(-100)), 31);
    assert_eq!(known.verdict(&old, at(32)), Verdict::Unknown(Some(id(-100))), "it ended before we began");
}

#[test]
fn nothing_is_unknown_before_the_broker_has_told_what_lives() {
    let known = Known { issuers: Issuers::named(CA), ..Known::default() };
    assert!(!known.is_ready());
    assert_eq!(known.verdict(&session(serial(id(-5)), 1), at(4_000)), Verdict::Unclear);
}

#[test]
fn endings_without_number_take_no_memory_without_end_and_stay_endings() {
    let mut known = known();
    for n in 0..70_000_i64 {
        known.ended(CredentialId::new(at(-200).plus_millis(n), [1; 10]), How::Expired, at(0));
    }
    assert_eq!(known.ended.len(), ENDED_MAX);
    let first = CredentialId::new(at(-200), [1; 10]);
    assert_eq!(known.verdict(&session(serial(first), -100), at(1)), Verdict::Unknown(Some(first)));
}
