use std::sync::Arc;

use daypass_evidence::entry::{Body, Change, KeyState, KeyUse, ObjectType, RegistryChanged};
use daypass_verify::ids::Digest;
use serde_json::json;

use super::*;
use crate::fixture::{self, NOW, PERMIT_ALL, WORLD};

fn nothing(_: &Digest) -> Option<Arc<Bundle>> {
    None
}

fn world() -> (Arc<Bundle>, State) {
    let bundle = fixture::bundle(&fixture::declared(), PERMIT_ALL);
    let state = fixture::state(&bundle);
    (bundle, state)
}

fn changed(index: Index, bundle: Digest, name: &str, change: Change) -> (Index, Body) {
    let declared = (change != Change::Removed).then(serde_json::Map::new);
    let (object, name) = (ObjectType::Task, name.parse().unwrap());
    (
        index,
        RegistryChanged {
            object,
            name,
            change,
            was: None,
            bundle,
            declared,
            since_ms: None,
            next_due_ms: None,
        }
        .into(),
    )
}

fn activated(digest: Digest) -> Body {
    BundleActivated { digest, previous: None, proposed: None, decided: vec![], bootstrap: false }.into()
}

#[test]
fn a_log_folds_to_what_it_declares() {
    let (bundle, state) = world();
    let entries = fixture::genesis(&bundle);
    assert_eq!(state.at(), entries.last().unwrap().0);
    assert_eq!(state.trust_domain().unwrap().as_str(), "example.org");
    assert_eq!(state.bundle().unwrap().digest(), bundle.digest());
    for (index, _, body) in &entries {
        if let Body::RegistryChanged(it) = body {
            assert_eq!(state.declared_at(it.object, it.name.as_str()), Some(*index), "{}", it.name);
        }
    }
    assert_eq!(state.declared_at(ObjectType::Task, "nope"), None);
    assert_eq!(state.declared_at(ObjectType::Target, "post"), None, "a task is no target");
}

#[test]
fn a_change_counts_only_with_its_activation() {
    let (bundle, mut state) = world();
    let before = state.declared_at(ObjectType::Task, "post");
    let at = state.at();
    let (index, change) = changed(at + 1, bundle.digest(), "post", Change::Changed);
    state.apply(index, NOW, &change, &nothing).unwrap();
    assert_eq!((state.at(), state.declared_at(ObjectType::Task, "post")), (at, before));
    let (index, removal) = changed(at + 2, bundle.digest(), "mesh", Change::Removed);
    state.apply(index, NOW, &removal, &nothing).unwrap();
    state.apply(at + 3, NOW, &activated(bundle.digest()), &|_| Some(Arc::clone(&bundle))).unwrap();
    assert_eq!(state.declared_at(ObjectType::Task, "post"), Some(at + 1));
    assert_eq!(state.declared_at(ObjectType::Task, "mesh"), None);
    let since = state.declaration(ObjectType::Task, "post").unwrap().since_ms;
    assert!(since < NOW, "a change does not put off the review");
}

#[test]
fn an_entry_that_does_not_fit_changes_nothing() {
    let (bundle, mut state) = world();
    let at = state.at();
    let other = Digest::of(b"another bundle");
    let refused = state.apply(at, NOW, &activated(bundle.digest()), &nothing);
    assert_eq!(refused, Err(StateError::Order { index: at, at }));
    let refused = state.apply(at + 1, NOW, &activated(other), &nothing);
    assert_eq!(refused, Err(StateError::UnknownBundle(other)));
    let (index, change) = changed(at + 1, other, "post", Change::Changed);
    state.apply(index, NOW, &change, &nothing).unwrap();
    let refused = state.apply(at + 2, NOW, &activated(bundle.digest()), &|_| Some(Arc::clone(&bundle)));
    assert!(matches!(refused, Err(StateError::ForeignChange { index, .. }) if index == at + 1));
    assert_eq!(state.at(), at);
}

#[test]
fn a_bundle_in_the_place_of_another_never_comes_into_force() {
    let (bundle, mut state) = world();
    let at = state.at();
    let other = Digest::of(b"another bundle");
    let refused = state.apply(at + 1, NOW, &activated(other), &|_| Some(Arc::clone(&bundle)));
    assert_eq!(refused, Err(StateError::UnknownBundle(other)));
    assert_eq!(state.at(), at);
}

#[test]
fn a_key_signs_and_is_published_as_its_newest_entry_says() {
    let (_, mut state) = world();
    let token = |state: &State| state.signing_key(KeyUse::Token, NOW).map(|it| it.key.clone());
    assert_eq!(token(&state), Some(WORLD.token_key.id.clone()));
    assert_eq!(state.published_keys(KeyUse::Token, NOW).count(), 1);
    let mut stolen = fixture::key_entry(&WORLD.token_key.id, KeyUse::Token);
    stolen.state = KeyState::Compromised;
    state.apply(state.at() + 1, NOW, &Body::from(stolen), &nothing).unwrap();
    assert_eq!(token(&state), None);
    assert_eq!(state.published_keys(KeyUse::Token, NOW).count(), 0);
    assert!(state.signing_key(KeyUse::Svid, NOW).is_some(), "other uses go on");
}

#[test]
fn what_is_carried_over_from_another_log_is_as_old_and_as_reviewed_as_it_was_there() {
    let (bundle, state) = world();
    let (since, due) = (UnixMs::new(1_000), UnixMs::new(9_000_000_000_000));
    let carried = |next_due_ms| {
        let (object, bundle) = (ObjectType::Identity, bundle.digest());
        let declared = Some(serde_json::Map::new());
        let (since_ms, change) = (Some(since), Change::Carried);
        let name = "prod/carried".parse().unwrap();
        RegistryChanged { object, name, change, was: None, bundle, declared, since_ms, next_due_ms }.into()
    };
    for (next_due_ms, expected) in [(None, since.plus_millis(90 * 86_400_000)), (Some(due), due)] {
        let (mut state, at) = (state.clone(), state.at());
        state.apply(at + 1, NOW, &carried(next_due_ms), &nothing).unwrap();
        state.apply(at + 2, NOW, &activated(bundle.digest()), &|_| Some(Arc::clone(&bundle))).unwrap();
        let declaration = state.declaration(ObjectType::Identity, "prod/carried").unwrap();
        assert_eq!((declaration.since_ms, declaration.review_due(90)), (since, expected));
    }
}

#[test]
fn a_review_sets_when_the_next_one_is_due() {
    let (_, mut state) = world();
    let review = |fields: serde_json::Value| Body::Unknown(fields.as_object().unwrap().clone());
    let name = "prod/billing/nightly";
    let of = json!({"type": "identity", "name": name, "at": 3});
    let due = |state: &State| state.declaration(ObjectType::Identity, name).unwrap().review_due(90);
    let first = due(&state);
    let kept = review(
        json!({"kind": "review.recorded", "of": of, "outcome": "keep", "next_due_ms": 9_000_000_000_000_i64}),
    );
    let at = state.at();
    state.apply(at + 1, NOW, &kept, &nothing).unwrap();
    assert!(due(&state) > first);
    assert_eq!(state.at(), at + 1);
    let of_emergency = review(json!({"kind": "review.recorded", "of": {"emergency": 7}, "outcome": "keep"}));
    state.apply(at + 2, NOW, &of_emergency, &nothing).unwrap();
    let damaged = review(json!({"kind": "review.recorded", "of": {"type": "x"}, "next_due_ms": 1}));
    assert_eq!(state.apply(at + 3, NOW, &damaged, &nothing), Err(StateError::Review(at + 3)));
}
