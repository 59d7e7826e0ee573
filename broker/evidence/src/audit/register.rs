//! What is declared and in force at each entry, and whether issuances and acts keep within it.

use std::collections::{BTreeMap, BTreeSet};

use daypass_verify::ids::{Digest, KeyId, Name};
use daypass_verify::scope::Scope;
use daypass_verify::time::{Seconds, UnixMs};
use serde::Deserialize;
use serde_json::Value;

use super::finding::{FindingCode, Findings};
use crate::entry::{
    Body, BundleActivated, By, CredentialIssued, Entry, Index, KeyChanged, KeyState, NameAt, ObjectType,
    RegistryChanged,
};

/// The most proposals and decisions that are remembered until their bundle is activated.
const AUTHORS_MAX: usize = 4096;

/// The bounds that a declared object sets, whatever its type.
#[derive(Debug, Deserialize)]
struct Bounds {
    #[serde(flatten)]
    scope: Scope,
    #[serde(default)]
    targets: BTreeSet<Name>,
    #[serde(default)]
    tasks: BTreeSet<Name>,
    ttl_max_s: Option<Seconds>,
    supplier: Option<Name>,
    expires_ms: Option<UnixMs>,
    ends_ms: Option<UnixMs>,
}

/// A declared object, and the entry that declared it as it is now.
#[derive(Debug)]
struct Object {
    at: Index,
    bounds: Bounds,
}

type Key = (ObjectType, String);

/// What the entries so far declare.
#[derive(Debug, Default)]
pub(super) struct Register {
    objects: BTreeMap<Key, Object>,
    /// Declared by entries whose `bundle.activated` has not come yet.
    pending: Vec<(Index, Option<By>, RegistryChanged)>,
    /// The bundle in force: before there is one, there is nobody to act.
    bundle: Option<Digest>,
    keys: BTreeMap<KeyId, KeyChanged>,
    state: Option<Index>,
    /// Who proposed and who decided, until the bundle is activated.
    authors: BTreeMap<Index, By>,
}

impl Register {
    /// Takes in what an entry declares.
    pub(super) fn follow(&mut self, index: Index, entry: &Entry, findings: &mut Findings) {
        let by = &entry.envelope.by;
        match &entry.body {
            Body::RegistryChanged(changed) => self.pending.push((index, by.clone(), (**changed).clone())),
            Body::BundleActivated(activated) => {
                self.activate(index, entry.envelope.time, activated, findings)
            }
            Body::KeyChanged(key) => drop(self.keys.insert(key.key.clone(), (**key).clone())),
            Body::Unknown(_) if matches!(&*entry.envelope.kind, "bundle.proposed" | "approval.decided") => {
                if let Some(by) = by {
                    self.remember(index, by);
                }
            }
            _ => {}
        }
        if entry.body.changes_state() {
            self.state = Some(index);
        }
    }

    fn remember(&mut self, index: Index, by: &By) {
        self.authors.insert(index, by.clone());
        if self.authors.len() > AUTHORS_MAX {
            self.authors.pop_first();
        }
    }

    fn activate(&mut self, index: Index, time: UnixMs, activated: &BundleActivated, findings: &mut Findings) {
        let pending = std::mem::take(&mut self.pending);
        for (at, by, _) in &pending {
            if let Some(by) = by.as_ref().filter(|_| self.bundle.is_some() && !activated.bootstrap) {
                self.check_by(*at, time, by, findings);
            }
        }
        for (at, _, changed) in pending {
            if changed.bundle != activated.digest {
                findings.add(
                    FindingCode::Malformed,
                    Some(at),
                    "declared by another bundle than the one activated",
                );
            }
            self.declare(at, changed, findings);
        }
        self.check_decided(index, activated, findings);
        self.bundle = Some(activated.digest);
    }

    fn declare(&mut self, at: Index, changed: RegistryChanged, findings: &mut Findings) {
        let key = (changed.object, changed.name.as_str().to_owned());
        let Some(declared) = changed.declared else {
            self.objects.remove(&key);
            return;
        };
        match serde_json::from_value(Value::Object(declared)) {
            Ok(bounds) => drop(self.objects.insert(key, Object { at, bounds })),
            Err(error) => {
                findings.add(FindingCode::Malformed, Some(at), format!("the declared object: {error}"));
            }
        }
    }

    fn check_decided(&mut self, index: Index, activated: &BundleActivated, findings: &mut Findings) {
        let who = |by: &By| (by.operator.clone(), by.identity.clone());
        let proposer = activated.proposed.and_then(|proposed| self.authors.get(&proposed)).map(who);
        for decided in &activated.decided {
            if proposer.is_some() && self.authors.get(decided).map(who) == proposer {
                let detail = format!("entry {decided} decides what the same author proposed");
                findings.add(FindingCode::SelfDecided, Some(index), detail);
            }
        }
        let done = activated.proposed.iter().chain(&activated.decided);
        done.for_each(|index| drop(self.authors.remove(index)));
    }

    /// Checks that the author of an entry was entitled to act. Declarations wait for their activation, as one
    /// made on the broker's own host has no author in the register. Whoever is refused did not act.
    pub(super) fn check_author(&self, index: Index, entry: &Entry, findings: &mut Findings) {
        let excused = match &entry.body {
            Body::RegistryChanged(_) | Body::CredentialRefused(_) => true,
            Body::BundleActivated(activated) => activated.bootstrap,
            _ => false,
        };
        if let Some(by) = entry.envelope.by.as_ref().filter(|_| self.bundle.is_some() && !excused) {
            self.check_by(index, entry.envelope.time, by, findings);
        }
    }

    fn check_by(&self, index: Index, time: UnixMs, by: &By, findings: &mut Findings) {
        let operator = by.operator.as_ref().map(|name| (ObjectType::Operator, name.as_str()));
        let identity = by.identity.as_ref().map(|name| (ObjectType::Identity, name.as_str()));
        let named: Vec<_> = operator.into_iter().chain(identity).collect();
        let stands = |(object, name): &(ObjectType, &str)| {
            self.find(*object, name).is_some_and(|found| found.bounds.expires_ms.is_none_or(|end| time < end))
        };
        if named.is_empty() || !named.iter().all(stands) {
            let names = named.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
            let detail = format!("`{names}` was neither an operator nor a declared identity");
            findings.add(FindingCode::UnknownAuthor, Some(index), detail);
        }
    }

    fn find(&self, object: ObjectType, name: &str) -> Option<&Object> {
        self.objects.get(&(object, name.to_owned()))
    }

    /// Checks an issuance against the state, the key and the declarations in force.
    pub(super) fn check_issued(
        &self,
        index: Index,
        time: UnixMs,
        issued: &CredentialIssued,
        findings: &mut Findings,
    ) {
        let mut add = |code, detail: String| findings.add(code, Some(index), detail);
        if Some(issued.decision.state) != self.state {
            let newest = self.state.map_or("none".to_owned(), |state| state.to_string());
            let detail = format!("decided under state {}, the newest is {newest}", issued.decision.state);
            add(FindingCode::StaleState, detail);
        }
        if Some(issued.decision.bundle) != self.bundle {
            add(FindingCode::StaleState, "decided under another bundle than the one in force".into());
        }
        self.check_key(issued, &mut add);
        self.check_task(issued, &mut add);
        self.check_target(issued, &mut add);
        self.check_identity(time, issued, &mut add);
    }

    fn check_key(&self, issued: &CredentialIssued, add: &mut impl FnMut(FindingCode, String)) {
        let (key, exp) = (&issued.credential.key, issued.credential.exp_ms);
        match self.keys.get(key) {
            None => add(FindingCode::KeyUnusable, format!("key `{key}` is not in the log")),
            Some(known) if matches!(known.state, KeyState::Compromised | KeyState::Destroyed) => {
                add(FindingCode::KeyUnusable, format!("key `{key}` was no longer to sign"));
            }
            Some(known) if exp > known.publish_until_ms => {
                let until = known.publish_until_ms;
                add(
                    FindingCode::OutlivesKey,
                    format!("valid until {exp}, key `{key}` is published until {until}"),
                );
            }
            Some(_) => {}
        }
    }

    fn check_task(&self, issued: &CredentialIssued, add: &mut impl FnMut(FindingCode, String)) {
        let Some(task) = self.declared_at(ObjectType::Task, &issued.task, add) else { return };
        let mut wider = |detail: String| add(FindingCode::WiderThanDeclared, detail);
        let (name, target) = (&issued.task.name, &issued.target.name);
        if !issued.granted.scope.is_within(&task.scope) {
            wider(format!("the granted scope goes beyond task `{name}`"));
        }
        if task.ttl_max_s.is_some_and(|most| issued.granted.ttl_s > most) {
            wider(format!("granted for longer than task `{name}` allows"));
        }
        if !task.targets.contains(target) {
            wider(format!("task `{name}` does not declare target `{target}`"));
        }
    }

    fn check_target(&self, issued: &CredentialIssued, add: &mut impl FnMut(FindingCode, String)) {
        let Some(target) = self.declared_at(ObjectType::Target, &issued.target, add) else { return };
        if !issued.granted.scope.audiences.is_subset(&target.scope.audiences) {
            let detail = format!("granted for audiences that target `{}` does not have", issued.target.name);
            add(FindingCode::WiderThanDeclared, detail);
        }
        if target.ttl_max_s.is_some_and(|most| issued.granted.ttl_s > most) {
            let detail = format!("granted for longer than target `{}` allows", issued.target.name);
            add(FindingCode::WiderThanDeclared, detail);
        }
    }

    fn check_identity(
        &self,
        time: UnixMs,
        issued: &CredentialIssued,
        add: &mut impl FnMut(FindingCode, String),
    ) {
        let Some(identity) = self.declared_at(ObjectType::Identity, &issued.identity, add) else { return };
        let (name, exp) = (&issued.identity.name, issued.credential.exp_ms);
        if !identity.tasks.contains(&issued.task.name) {
            let detail = format!("identity `{name}` does not declare task `{}`", issued.task.name);
            add(FindingCode::WiderThanDeclared, detail);
        }
        if identity.expires_ms.is_none_or(|end| exp > end || time > end) {
            add(FindingCode::OutlivesIdentity, format!("valid until {exp}, beyond the end of `{name}`"));
        }
        if let Some(supplier) = &identity.supplier {
            self.check_supplier(supplier, issued, add);
        }
    }

    fn check_supplier(
        &self,
        name: &Name,
        issued: &CredentialIssued,
        add: &mut impl FnMut(FindingCode, String),
    ) {
        let (exp, granted) = (issued.credential.exp_ms, &issued.granted);
        let supplier = self.find(ObjectType::Supplier, name.as_str()).map(|found| &found.bounds);
        if supplier.and_then(|it| it.ends_ms).is_none_or(|end| exp > end) {
            let detail = format!("valid until {exp}, beyond the contract of supplier `{name}`");
            add(FindingCode::OutlivesSupplier, detail);
        }
        let Some(supplier) = supplier else { return };
        if !granted.scope.is_within(&supplier.scope) {
            add(FindingCode::WiderThanDeclared, format!("the granted scope goes beyond supplier `{name}`"));
        }
        if supplier.ttl_max_s.is_some_and(|most| granted.ttl_s > most) {
            let detail = format!("granted for longer than supplier `{name}` allows");
            add(FindingCode::WiderThanDeclared, detail);
        }
    }

    /// The bounds of a declared object, which an issuance must have seen as it is now.
    fn declared_at<N: AsRef<str>>(
        &self,
        object: ObjectType,
        seen: &NameAt<N>,
        add: &mut impl FnMut(FindingCode, String),
    ) -> Option<&Bounds> {
        let name = seen.name.as_ref();
        let Some(found) = self.find(object, name) else {
            add(FindingCode::WiderThanDeclared, format!("`{name}` is not declared"));
            return None;
        };
        if found.at != seen.at {
            let detail = format!("`{name}` as declared by entry {}, the newest is {}", seen.at, found.at);
            add(FindingCode::StaleState, detail);
        }
        Some(&found.bounds)
    }
}
