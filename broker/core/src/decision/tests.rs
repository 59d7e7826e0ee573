//! Denials by reason, one thing changed at a time in a request that would be permitted.

use daypass_evidence::entry::{Body, ProofUse, Selector, SuspensionSet};
use daypass_verify::time::Seconds;

use super::*;
use crate::bundle::object::Declared;
use crate::fixture::{self, NOW, PERMIT_ALL};
use crate::proof::UnverifiedProof;
use crate::request::{Bind, Form};
use crate::state::State;

const DAY_MS: i64 = 86_400_000;

/// Decides `request` of the job with this subject, on a connection with a certificate, over `declared`.
fn decided(declared: &Declared, rules: &str, subject: &str, request: &Request) -> Result<Grant, Box<Denial>> {
    let bundle = fixture::bundle(declared, rules);
    let principal = fixture::bound_principal(subject, &bundle);
    decide(&principal, request, &fixture::state(&bundle), fixture::id(), NOW).map_err(Box::new)
}

fn nightly(request: &Request) -> Result<Grant, Box<Denial>> {
    decided(&fixture::declared(), PERMIT_ALL, "job:nightly", request)
}

fn reasons(result: Result<Grant, Box<Denial>>) -> (&'static str, Outward) {
    let denial = result.unwrap_err();
    (denial.inner, denial.outward)
}

#[test]
fn a_request_that_asks_for_nothing_special_gets_the_whole_task() {
    let grant = nightly(&fixture::request("post")).unwrap();
    let declared = fixture::declared();
    let task = &declared.tasks["post"];
    assert_eq!(grant.scope(), &task.scope);
    assert_eq!(grant.expires_at(), NOW.floor_second().plus(task.ttl_s));
    assert!(grant.narrowed().is_empty() && grant.is_bound());
    assert_eq!(grant.subject().as_str(), "spiffe://example.org/prod/billing/nightly");
    assert_eq!(grant.decision().rules, ["all".to_owned()].into());
    let claims = &grant.record.proof.claims;
    assert_eq!(
        claims.keys().collect::<Vec<_>>(),
        ["repository_id", "run_id"],
        "only what something looks at"
    );
}

#[test]
fn a_request_beyond_its_bounds_is_denied_with_its_reason() {
    type Change = fn(&mut Request);
    let cases: &[(&str, Change, &str, Outward)] = &[
        ("unknown task", |it| it.task = "nope".into(), "TASK_NOT_ALLOWED", Outward::TaskNotAllowed),
        ("task in other case", |it| it.task = "Post".into(), "TASK_NOT_ALLOWED", Outward::TaskNotAllowed),
        (
            "foreign identity",
            |it| it.identity = Some("prod/billing/twin".parse().unwrap()),
            "OTHER_IDENTITY",
            Outward::NotAllowed,
        ),
        (
            "foreign audience",
            |it| it.audiences = ["https://x.example.org".parse().unwrap()].into(),
            "AUDIENCE_NOT_ALLOWED",
            Outward::AudienceNotAllowed,
        ),
        (
            "foreign action",
            |it| it.actions = ["invoice:delete".parse().unwrap()].into(),
            "ACTION_NOT_ALLOWED",
            Outward::ActionNotAllowed,
        ),
        (
            "foreign resource",
            |it| it.resources = ["ap/*".parse().unwrap()].into(),
            "RESOURCE_NOT_ALLOWED",
            Outward::ResourceNotAllowed,
        ),
        (
            "parent of a resource",
            |it| it.resources = ["eu".parse().unwrap()].into(),
            "RESOURCE_NOT_ALLOWED",
            Outward::ResourceNotAllowed,
        ),
        ("no lifetime", |it| it.ttl_s = Some(Seconds::new(0)), "MALFORMED", Outward::Malformed),
        ("two targets", |it| it.task = "several".into(), "MALFORMED", Outward::Malformed),
        (
            "two targets by name",
            |it| {
                it.task = "several".into();
                it.audiences =
                    ["mesh", "https://ledger.example.org"].iter().map(|it| it.parse().unwrap()).collect();
            },
            "MALFORMED",
            Outward::Malformed,
        ),
        (
            "profile of another task",
            |it| it.form = Form::Token { profile: Some(Profile::JwtSvid), bind: Bind::Auto },
            "PROFILE_NOT_ALLOWED",
            Outward::TaskNotAllowed,
        ),
        (
            "certificate of a token task",
            |it| it.form = Form::Certificate { profile: None, key: fixture::csr() },
            "PROFILE_NOT_ALLOWED",
            Outward::TaskNotAllowed,
        ),
        (
            "bearer where it is not permitted",
            |it| it.form = Form::Token { profile: None, bind: Bind::Bearer },
            "BEARER_NOT_ALLOWED",
            Outward::NotAllowed,
        ),
        (
            "two audiences of a JWT-SVID",
            |it| {
                it.task = "mesh".into();
                it.form = Form::Token { profile: Some(Profile::JwtSvid), bind: Bind::Auto };
            },
            "MALFORMED",
            Outward::Malformed,
        ),
        (
            "more than an entry can hold",
            |it| {
                it.resources =
                    (0..200).map(|at| format!("eu/{at}/abcdefghijklmnopqrst").parse().unwrap()).collect();
            },
            "MALFORMED",
            Outward::Malformed,
        ),
        ("approval", |it| it.task = "approved".into(), "APPROVAL_REQUIRED", Outward::ApprovalRequired),
        (
            "approval by one's own word",
            |it| {
                it.task = "approved".into();
                it.approval = Some(1);
            },
            "APPROVAL_REQUIRED",
            Outward::ApprovalRequired,
        ),
        (
            "emergency",
            |it| {
                it.emergency =
                    Some(crate::request::Emergency { reason: "fire".into(), reference: "INC-7".into() });
            },
            "EMERGENCY_UNIMPLEMENTED",
            Outward::Unimplemented,
        ),
    ];
    for (what, change, inner, outward) in cases {
        let mut request = fixture::request("post");
        change(&mut request);
        assert_eq!(reasons(nightly(&request)), (*inner, *outward), "{what}");
    }
}

#[test]
fn what_is_declared_stops_a_request_with_its_reason() {
    type Change = fn(&mut Declared);
    fn identity(declared: &mut Declared) -> &mut crate::bundle::object::Identity {
        declared.identities.get_mut("prod/billing/nightly").unwrap()
    }
    let cases: &[(&str, Change, &str, Outward)] = &[
        ("disabled identity", |it| identity(it).disabled = true, "IDENTITY_DISABLED", Outward::NotAllowed),
        (
            "disabled issuer",
            |it| it.issuers.get_mut("ci").unwrap().disabled = true,
            "ISSUER_DISABLED",
            Outward::NotAllowed,
        ),
        (
            "expired identity",
            |it| identity(it).expires_ms = NOW,
            "IDENTITY_EXPIRED",
            Outward::IdentityExpired,
        ),
        (
            "identity's last second",
            |it| identity(it).expires_ms = NOW.plus_millis(800),
            "IDENTITY_EXPIRED",
            Outward::IdentityExpired,
        ),
        (
            "ended contract",
            |it| it.suppliers.get_mut("acme").unwrap().ends_ms = NOW,
            "CONTRACT_ENDED",
            Outward::ContractEnded,
        ),
        ("task withdrawn", |it| identity(it).tasks.clear(), "TASK_NOT_ALLOWED", Outward::TaskNotAllowed),
    ];
    for (what, change, inner, outward) in cases {
        let mut declared = fixture::declared();
        identity(&mut declared).supplier = Some("acme".parse().unwrap());
        change(&mut declared);
        let result = decided(&declared, PERMIT_ALL, "job:nightly", &fixture::request("post"));
        assert_eq!(reasons(result), (*inner, *outward), "{what}");
    }
}

#[test]
fn a_proof_that_fits_several_identities_must_name_one() {
    let declared = fixture::declared();
    let denial = decided(&declared, PERMIT_ALL, "job:twin", &fixture::request("post")).unwrap_err();
    assert_eq!((denial.outward, denial.field), (Outward::Malformed, Some("identity")));
    let named = Request { identity: Some("prod/billing/twin".parse().unwrap()), ..fixture::request("post") };
    let grant = decided(&declared, PERMIT_ALL, "job:twin", &named).unwrap();
    assert_eq!((grant.identity().name.as_str(), grant.record.proof.clause), ("prod/billing/twin", 1));
    let nobody = decided(&declared, PERMIT_ALL, "job:nobody", &fixture::request("post"));
    assert_eq!(reasons(nobody), ("NO_IDENTITY", Outward::NotAllowed));
}

#[test]
fn a_token_is_bound_whenever_it_can_be_and_bearer_only_where_the_task_permits() {
    let bundle = fixture::bundle(&fixture::declared(), PERMIT_ALL);
    let state = fixture::state(&bundle);
    let alone = fixture::verify(fixture::id_token("job:nightly"), &bundle).unwrap();
    let bound = fixture::bound_principal("job:nightly", &bundle);
    let asked = |task: &str, bind| Request {
        audiences: ["https://ledger.example.org".parse().unwrap()].into(),
        form: Form::Token { profile: None, bind },
        ..fixture::request(task)
    };
    for (principal, task, bind, expected) in [
        (&bound, "post", Bind::Auto, Ok(true)),
        (&bound, "post", Bind::Certificate, Ok(true)),
        (&bound, "several", Bind::Auto, Ok(true)),
        (&bound, "several", Bind::Bearer, Ok(false)),
        (&alone, "several", Bind::Auto, Ok(false)),
        (&alone, "several", Bind::Certificate, Err("MALFORMED")),
        (&alone, "post", Bind::Auto, Err("BEARER_NOT_ALLOWED")),
    ] {
        let decided = decide(principal, &asked(task, bind), &state, fixture::id(), NOW);
        assert_eq!(decided.map(|it| it.is_bound()).map_err(|it| it.inner), expected, "{task} {bind:?}");
    }
}

#[test]
fn a_proof_that_may_be_shown_again_buys_nothing_that_is_unbound_and_out_of_reach() {
    let svid = || Request {
        audiences: ["mesh".parse().unwrap()].into(),
        form: Form::Token { profile: Some(Profile::JwtSvid), bind: Bind::Auto },
        ..fixture::request("mesh")
    };
    assert!(nightly(&svid()).is_ok());
    let mut declared = fixture::declared();
    declared.issuers.get_mut("ci").unwrap().replay = ProofUse::UntilExpiry;
    // The bundle itself refuses that for bearer tasks; JWT-SVIDs are bearer by their standard.
    declared.tasks.get_mut("several").unwrap().bearer = false;
    let result = decided(&declared, PERMIT_ALL, "job:nightly", &svid());
    assert_eq!(reasons(result), ("REPLAYABLE_UNBOUND", Outward::NotAllowed));
    assert!(decided(&declared, PERMIT_ALL, "job:nightly", &fixture::request("post")).is_ok(), "bound");
}

#[test]
fn the_end_of_a_token_caps_what_it_buys_only_where_its_issuer_says_so() {
    let mut declared = fixture::declared();
    let ttl = |declared: &Declared| {
        decided(declared, PERMIT_ALL, "job:nightly", &fixture::request("post"))
            .unwrap()
            .record
            .granted
            .ttl_s
            .get()
    };
    assert_eq!(ttl(&declared), 900);
    declared.issuers.get_mut("ci").unwrap().proof_caps = true;
    assert_eq!(ttl(&declared), 300);
}

#[test]
fn rules_refuse_whole_and_an_error_refuses_too() {
    let forbid = format!(
        r#"{PERMIT_ALL} @id("no-eu") forbid (principal, action, resource) when {{ context.resources.contains("eu/*") }};"#
    );
    let denial =
        decided(&fixture::declared(), &forbid, "job:nightly", &fixture::request("post")).unwrap_err();
    assert_eq!((denial.inner, denial.rules), ("FORBIDDEN", ["no-eu".to_owned()].into()));
    let overflow = format!(
        r#"{PERMIT_ALL} @id("odd") forbid (principal, action, resource) when {{ context.ttl_s * 9223372036854775807 > 1 }};"#
    );
    let error = decided(&fixture::declared(), &overflow, "job:nightly", &fixture::request("post"));
    assert_eq!(reasons(error), ("POLICY_ERROR", Outward::NotAllowed));
    let elsewhere = r#"@id("x") permit (principal == Identity::"prod/billing/twin", action, resource);"#;
    let nothing = decided(&fixture::declared(), elsewhere, "job:nightly", &fixture::request("post"));
    assert_eq!(reasons(nothing), ("NOT_PERMITTED", Outward::NotAllowed));
}

#[test]
fn what_was_narrowed_is_said_and_refused_on_demand() {
    let wide = || Request {
        actions: ["invoice:read", "invoice:delete"].iter().map(|it| it.parse().unwrap()).collect(),
        resources: ["eu/de/x", "ap/*"].iter().map(|it| it.parse().unwrap()).collect(),
        ttl_s: Some(Seconds::new(7200)),
        ..fixture::request("post")
    };
    let grant = nightly(&wide()).unwrap();
    assert_eq!(grant.narrowed(), ["actions", "resources", "ttl"]);
    assert_eq!(grant.scope().resources, ["eu/de/x".parse().unwrap()].into());
    assert!(grant.record.granted.scope.is_within(&grant.record.asked.scope));
    let refused = nightly(&Request { refuse_narrowed: true, ..wide() });
    assert_eq!(reasons(refused), ("NARROWED", Outward::ActionNotAllowed));
    let longer =
        Request { refuse_narrowed: true, ttl_s: Some(Seconds::new(901)), ..fixture::request("post") };
    assert_eq!(reasons(nightly(&longer)), ("NARROWED", Outward::NotAllowed));
    let within =
        Request { refuse_narrowed: true, ttl_s: Some(Seconds::new(900)), ..fixture::request("post") };
    assert!(nightly(&within).unwrap().narrowed().is_empty());
}

#[test]
fn a_lifetime_that_was_left_open_is_no_reason_to_refuse_a_shorter_one() {
    let mut declared = fixture::declared();
    let soon = NOW.floor_second().plus(Seconds::new(60));
    declared.identities.values_mut().for_each(|identity| identity.expires_ms = soon);
    let open = Request { refuse_narrowed: true, ttl_s: None, ..fixture::request("post") };
    let grant = decided(&declared, PERMIT_ALL, "job:nightly", &open).unwrap();
    assert_eq!((grant.expires_at(), grant.narrowed()), (soon, &["ttl"][..]));
    let named = Request { ttl_s: Some(Seconds::new(61)), ..open };
    assert_eq!(
        reasons(decided(&declared, PERMIT_ALL, "job:nightly", &named)),
        ("NARROWED", Outward::NotAllowed)
    );
}

#[test]
fn a_suppliers_ceiling_holds_for_its_identities() {
    let grant = decided(&fixture::declared(), PERMIT_ALL, "job:acme", &fixture::request("post")).unwrap();
    assert_eq!(grant.scope().actions, ["invoice:read".parse().unwrap()].into());
    assert_eq!(grant.scope().resources, ["eu/de/*".parse().unwrap()].into());
    assert_eq!(grant.expires_at(), NOW.floor_second().plus(Seconds::new(300)));
    assert_eq!(grant.narrowed(), ["actions", "resources", "ttl"]);
}

#[test]
fn whatever_is_suspended_gets_nothing_until_it_is_lifted_or_over() {
    let bundle = fixture::bundle(&fixture::declared(), PERMIT_ALL);
    let principal = fixture::bound_principal("job:nightly", &bundle);
    let state = fixture::state(&bundle);
    let decide_under = |state: &State, now| {
        decide(&principal, &fixture::request("post"), state, fixture::id(), now).map_err(Box::new)
    };
    let index = state.at() + 1;
    let until_ms = Some(NOW.plus_millis(5000));
    let selector = Selector { everything: true, ..Selector::default() };
    let set = SuspensionSet {
        selector,
        reason: "test".into(),
        until_ms,
        revoked: 0,
        live: 0,
        drill: None,
        revokes: false,
    };
    let mut suspended = state.clone();
    suspended.apply(index, NOW, &Body::from(set), &|_| None).unwrap();
    let denial = decide_under(&suspended, NOW).unwrap_err();
    assert_eq!((denial.outward, denial.suspension), (Outward::Suspended, Some(index)));
    assert!(decide_under(&suspended, NOW.plus_millis(5000)).is_ok(), "its time is over");
    let lifted =
        daypass_evidence::entry::SuspensionLifted { suspension: index, reason: "x".into(), approval: None };
    suspended.apply(index + 1, NOW, &Body::from(lifted), &|_| None).unwrap();
    assert_eq!(decide_under(&suspended, NOW).unwrap().decision().state, index + 1);
    assert!(decide_under(&state, NOW).is_ok(), "a clone is not touched");
}

#[test]
fn an_overdue_review_first_shortens_and_then_refuses() {
    let bundle = fixture::bundle(&fixture::declared(), PERMIT_ALL);
    let state = fixture::state(&bundle);
    let declared =
        state.declaration(daypass_evidence::entry::ObjectType::Identity, "prod/billing/nightly").unwrap();
    let due = declared.review_due(90);
    assert_eq!(due, NOW.plus_millis(89 * DAY_MS));
    let ttl = |now: UnixMs| -> Result<u32, &'static str> {
        let mut state = state.clone();
        let mut key = fixture::key_entry(&fixture::WORLD.token_key.id, KeyUse::Token);
        key.sign_until_ms = now.plus_millis(DAY_MS);
        key.publish_until_ms = now.plus_millis(DAY_MS);
        state.apply(state.at() + 1, now, &Body::from(key), &|_| None).unwrap();
        let leaf = fixture::WORLD
            .workloads
            .leaf(vec![fixture::uri("spiffe://example.org/prod/billing/nightly")], |it| {
                it.not_after = time::OffsetDateTime::from_unix_timestamp(now.seconds() + 86_400).unwrap()
            });
        let chain = vec![leaf];
        let principal = fixture::verify(UnverifiedProof::Certificate { chain }, &bundle).unwrap();
        let grant = decide(&principal, &fixture::request("post"), &state, fixture::id(), now);
        grant.map(|it| it.record.granted.ttl_s.get()).map_err(|it| it.inner)
    };
    assert_eq!(ttl(due.plus_millis(-1)), Ok(900));
    assert_eq!(ttl(due), Ok(60));
    assert_eq!(ttl(due.plus_millis(30 * DAY_MS)), Err("REVIEW_OVERDUE"));
}

#[test]
fn without_a_bundle_or_a_key_nothing_is_issued() {
    let bundle = fixture::bundle(&fixture::declared(), PERMIT_ALL);
    let principal = fixture::bound_principal("job:nightly", &bundle);
    let decide_under = |state: &State, now| {
        decide(&principal, &fixture::request("post"), state, fixture::id(), now).map_err(Box::new)
    };
    let denial = decide_under(&State::empty(), NOW).unwrap_err();
    assert_eq!((denial.outward, denial.to_entry(1, NOW)), (Outward::Halted, None));
    let late = NOW.plus_millis(6 * DAY_MS);
    assert_eq!(reasons(decide_under(&fixture::state(&bundle), late)), ("NO_SIGNING_KEY", Outward::Halted));
}

#[test]
fn an_identity_that_lost_its_clause_is_denied_though_its_proof_was_checked_before() {
    let principal =
        fixture::bound_principal("job:nightly", &fixture::bundle(&fixture::declared(), PERMIT_ALL));
    let mut declared = fixture::declared();
    declared.identities.get_mut("prod/billing/nightly").unwrap().proofs.remove(0);
    let state = fixture::state(&fixture::bundle(&declared, PERMIT_ALL));
    let result = decide(&principal, &fixture::request("post"), &state, fixture::id(), NOW);
    assert_eq!(reasons(result.map_err(Box::new)), ("NO_IDENTITY", Outward::NotAllowed));
}

#[test]
fn a_denial_becomes_an_entry_that_says_why() {
    let request = Request { run: Some("JOB-1".into()), ..fixture::request("approved") };
    let denial = nightly(&request).unwrap_err();
    let entry = denial.to_entry(3, NOW).unwrap();
    assert_eq!((entry.reason.as_str(), entry.count), ("APPROVAL_REQUIRED", 3));
    assert_eq!(entry.identity.unwrap().name.as_str(), "prod/billing/nightly");
    assert_eq!(entry.asked.unwrap().run.as_deref(), Some("JOB-1"));
    assert!(entry.proof.claims.is_empty());
}

#[test]
fn the_names_of_the_answers_are_those_of_the_api() {
    let names: Vec<_> = Outward::ALL.iter().map(|it| it.as_str()).collect();
    assert_eq!(names.len(), 26);
    assert!(names.iter().all(|it| it.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')));
}

#[test]
fn the_sample_organisations_nightly_job_may_post_invoices_and_deploy_nothing() {
    let bundle = std::sync::Arc::new(crate::bundle::sample::bundle());
    let state = fixture::state(&bundle);
    let mut claims = fixture::claims("project:42:ref:main");
    claims["event"] = "schedule".into();
    claims["exp"] = (NOW.seconds() + 200).into();
    let token = fixture::WORLD.ci.mint(&fixture::header(), &claims);
    let token = daypass_verify::jose::UnverifiedToken::parse(&token).unwrap();
    let proof = UnverifiedProof::Both { token, chain: vec![fixture::self_signed()] };
    let principal = fixture::verify(proof, &bundle).unwrap();
    let decided = |task: &str| {
        decide(&principal, &fixture::request(task), &state, fixture::id(), NOW).map_err(Box::new)
    };
    let grant = decided("post-invoices").unwrap();
    assert_eq!(grant.decision().rules, ["billing/nightly".to_owned()].into());
    assert_eq!(reasons(decided("deploy-web")), ("TASK_NOT_ALLOWED", Outward::TaskNotAllowed));
}
