//! What still holds when a log goes on in another: what is declared, since when and how reviewed; what is suspended.

use daypass_core::bundle::Bundle;
use daypass_core::state::State;
use daypass_evidence::entry::{Body, BundleActivated, Change, KeyChanged, KeyState, KeyUse, RegistryChanged};
use daypass_verify::time::UnixMs;

/// How long after a compromise nothing can live that the key signed.
pub(crate) const COMPROMISE_OVER_MS: i64 = 25 * 3_600_000;

/// How much was carried over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Carried {
    /// Declared objects.
    pub objects: usize,
    /// Of those, the ones that were reviewed.
    pub reviewed: usize,
    /// Suspensions.
    pub suspensions: usize,
    /// Credentials whose endings the new log will hold.
    pub live: usize,
    /// Keys that were brought and signed, which no broker can make anew: given up like all others.
    pub imported: usize,
    /// Whether endings wait for a second source that agrees with the clock.
    pub held: bool,
}

/// The bundle in force with all that it declares, and the suspensions.
pub(crate) fn carried(now: UnixMs, state: &State) -> (Carried, Vec<Body>) {
    let mut carried = Carried::default();
    let mut bodies: Vec<Body> = Vec::new();
    if let Some(bundle) = state.bundle() {
        let register = register(bundle, state);
        carried.objects = register.len();
        carried.reviewed = register.iter().filter(|it| it.next_due_ms.is_some()).count();
        bodies.extend(register.into_iter().map(Body::from));
        bodies.push(
            BundleActivated {
                digest: bundle.digest(),
                previous: None,
                proposed: None,
                decided: Vec::new(),
                bootstrap: true,
            }
            .into(),
        );
    }
    let in_force = state.suspensions().filter(|(_, set)| set.until_ms.is_none_or(|until| now < until));
    let before = bodies.len();
    bodies.extend(in_force.map(|(_, set)| Body::from(set.clone())));
    carried.suspensions = bodies.len() - before;
    (carried, bodies)
}

/// The keys as they are, the one that signs checkpoints first. What is destroyed stays behind, and what others know once
/// nothing can live that it signed: until then somebody may still have to end that.
pub(crate) fn keys(now: UnixMs, state: &State) -> Vec<KeyChanged> {
    let over = |key: &KeyChanged| {
        let since = now.millis_since(key.publish_until_ms);
        match key.state {
            KeyState::Destroyed => since >= 0,
            KeyState::Compromised => since >= COMPROMISE_OVER_MS,
            _ => false,
        }
    };
    let (mut first, rest): (Vec<_>, Vec<_>) = state
        .keys()
        .values()
        .filter(|key| !over(key))
        .cloned()
        .partition(|key| key.usage == KeyUse::Evidence);
    first.extend(rest);
    first
}

fn register(bundle: &Bundle, state: &State) -> Vec<RegistryChanged> {
    let changes = bundle.changes_from(None).into_iter();
    let carried = changes.map(|(object, name, _, declared)| {
        let declaration = state.declaration(object, name.as_str());
        RegistryChanged {
            object,
            change: Change::Carried,
            was: None,
            bundle: bundle.digest(),
            declared,
            since_ms: declaration.map(|it| it.since_ms),
            next_due_ms: declaration.and_then(|it| it.next_due_ms),
            name,
        }
    });
    carried.collect()
}
