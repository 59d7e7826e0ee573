//! Whether what is declared holds together: every name that is referred to exists, no ceiling lies above the
//! product's own, nothing is said that could mislead. What only looks unwise is a warning.

mod condition;
mod issuer;
mod node;
mod overlap;
mod task;
mod workload;

use daypass_evidence::canonical;
use daypass_evidence::entry::ObjectType;
use daypass_verify::ids::Name;

use super::finding::did_you_mean;
use super::object::{Declared, OwnerStatus};
use super::places::{Kind, Places};
use super::{Finding, changes};

/// More rules than this are hard to keep in a head, and each costs time at every request.
const RULES_ADVISED: usize = 50;

/// How long one object may be: its entry holds it whole, and 4 KiB are left for the rest of that entry.
const OBJECT_LEN_MAX: usize = canonical::MAX_ENTRY - 4096;

/// Everything that is wrong or unwise in what is declared.
pub(super) fn check(declared: &Declared, places: &Places) -> Vec<Finding> {
    let mut check = Check { declared, places, findings: Vec::new() };
    declared.tasks.iter().for_each(|(name, it)| task::task(&mut check, name, it));
    declared.targets.iter().for_each(|(name, it)| task::target(&mut check, name, it));
    task::audiences(&mut check);
    declared.issuers.iter().for_each(|(name, it)| issuer::issuer(&mut check, name, it));
    issuer::urls(&mut check);
    declared.identities.iter().for_each(|(name, it)| workload::identity(&mut check, name, it));
    declared.operators.iter().for_each(|(name, it)| workload::operator(&mut check, name, it));
    for (name, it) in &declared.exceptions {
        check.refer(("exception", name.as_str()), "target", "target", it.target.as_str());
        check.owner(("exception", name.as_str()), "owner", &it.owner);
    }
    overlap::proofs(&mut check);
    check.sizes();
    check.findings
}

/// Advice about the number of rules.
pub(super) fn rule_count(count: usize, path: &str) -> Option<Finding> {
    let message = format!(
        "{count} rules: expected {RULES_ADVISED} at most, each is evaluated at every request; say what is particular to one task in its ceiling"
    );
    (count > RULES_ADVISED).then(|| Finding {
        path: path.into(),
        line: 0,
        code: "many-rules",
        message,
        refuses: false,
    })
}

/// An object that is being checked: its type and its name.
type Subject<'a> = (Kind, &'a str);

struct Check<'a> {
    declared: &'a Declared,
    places: &'a Places,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn refuse(&mut self, code: &'static str, subject: Subject<'_>, key: &str, message: &str) {
        self.find(code, subject, key, message, true);
    }

    fn warn(&mut self, code: &'static str, subject: Subject<'_>, key: &str, message: &str) {
        self.find(code, subject, key, message, false);
    }

    fn find(
        &mut self,
        code: &'static str,
        (kind, name): Subject<'_>,
        key: &str,
        message: &str,
        refuses: bool,
    ) {
        let (path, line) = self.places.nearest(kind, name, key);
        let message = format!("{kind} `{name}`: {message}");
        self.findings.push(Finding { path, line, code, message, refuses });
    }

    /// Refuses a reference to something that no file declares. What is declared badly has its own finding.
    fn refer(&mut self, subject: Subject<'_>, key: &str, to: Kind, name: &str) {
        if self.is_declared(to, name) || self.places.object(to, name).is_some() {
            return;
        }
        let names = self.names(to);
        let near = did_you_mean(name, names, "declare it, or name one that is declared");
        let message = format!("unknown {to} `{name}`{near}");
        self.refuse("unknown-reference", subject, key, &message);
    }

    /// Refuses an owner that no file declares, and warns of one that has left.
    fn owner(&mut self, subject: Subject<'_>, key: &str, owner: &Name) {
        self.refer(subject, key, "owner", owner.as_str());
        if self.declared.owners.get(owner).is_some_and(|owner| owner.status == OwnerStatus::Left) {
            let message = format!("owner `{owner}` has left: name who answers for it now");
            self.warn("owner-left", subject, key, &message);
        }
    }

    /// Refuses an object that no entry of the log could carry.
    fn sizes(&mut self) {
        for (object, name, declared) in changes::objects(self.declared) {
            let subject = (kind_of(object), name.as_str());
            match canonical::to_vec_unbounded(&declared).map(|bytes| bytes.len()) {
                Ok(len) if len <= OBJECT_LEN_MAX => {}
                Ok(len) => {
                    let message = format!(
                        "{len} bytes in its entry: expected {OBJECT_LEN_MAX} at most, divide it or refer to what is long"
                    );
                    self.refuse("too-long", subject, "", &message);
                }
                Err(error) => self.refuse("not-canonical", subject, "", &error.to_string()),
            }
        }
    }

    /// Refuses an environment that the organisation has not; silent where its own table could not be read.
    fn environment(&mut self, subject: Subject<'_>, name: &str) {
        let known: Vec<_> = self.declared.settings.environments.iter().map(AsRef::as_ref).collect();
        if !known.is_empty() && !known.contains(&name) {
            let near = did_you_mean(name, known, "add it to `environments` of `[organisation]`");
            let message = format!("unknown environment `{name}`{near}");
            self.refuse("unknown-reference", subject, "environment", &message);
        }
    }

    fn is_declared(&self, kind: Kind, name: &str) -> bool {
        match kind {
            "identity" => self.declared.identities.contains_key(name),
            "task" => self.declared.tasks.contains_key(name),
            "target" => self.declared.targets.contains_key(name),
            "issuer" => self.declared.issuers.contains_key(name),
            "supplier" => self.declared.suppliers.contains_key(name),
            "owner" => self.declared.owners.contains_key(name),
            _ => false,
        }
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        fn all<'a, N: AsRef<str> + 'a, T: 'a>(map: &'a std::collections::BTreeMap<N, T>) -> Vec<&'a str> {
            map.keys().map(AsRef::as_ref).collect()
        }
        match kind {
            "identity" => all(&self.declared.identities),
            "task" => all(&self.declared.tasks),
            "target" => all(&self.declared.targets),
            "issuer" => all(&self.declared.issuers),
            "supplier" => all(&self.declared.suppliers),
            "owner" => all(&self.declared.owners),
            _ => Vec::new(),
        }
    }
}

const fn kind_of(object: ObjectType) -> Kind {
    match object {
        ObjectType::Identity => "identity",
        ObjectType::Task => "task",
        ObjectType::Target => "target",
        ObjectType::Issuer => "issuer",
        ObjectType::Supplier => "supplier",
        ObjectType::Exception => "exception",
        ObjectType::Owner => "owner",
        ObjectType::Operator => "operator",
    }
}
