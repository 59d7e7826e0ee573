//! Who may do what, as a table that a reviewer compares: what a change of the bundle really changes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use daypass_evidence::entry::{Profile, ProofKind};
use daypass_verify::ids::{IdentityName, Name};
use daypass_verify::scope::Scope;
use daypass_verify::time::Seconds;

use super::Bundle;
use super::object::{Identity, Issuer, IssuerKind, ProofClause, Supplier, Target, Task};
use crate::policy::{Question, Verdict};

/// More ways than this to fill in the claims that rules look at are not tried.
const CLAIM_CHOICES_MAX: usize = 64;

const HEADER: &str = "\
| identity | proof | task | target | may | actions | resources | at most | as | rules |
|---|---|---|---|---|---|---|---|---|---|
";

/// A Markdown table with a row for each identity, proof, task and target, told from the bundle alone: the
/// ceilings, and what the rules say of a request for all of it. Each is tried at the longest lifetime and at the
/// task's default; a claim that a rule looks at and no proof clause fixes counts as absent; an approval that is
/// needed counts as given.
#[must_use]
pub fn access_table(bundle: &Bundle) -> String {
    let mut table = HEADER.to_owned();
    let declared = bundle.declared();
    for (identity_name, identity) in &declared.identities {
        for task_name in &identity.tasks {
            let Some(task) = declared.tasks.get(task_name) else { continue };
            for target_name in &task.targets {
                let Some(target) = declared.targets.get(target_name) else { continue };
                let case = Case { bundle, identity_name, identity, task_name, task, target_name, target };
                case.rows(&mut table);
            }
        }
    }
    table
}

/// An identity that asks for all that one of its tasks allows at one target.
struct Case<'a> {
    bundle: &'a Bundle,
    identity_name: &'a IdentityName,
    identity: &'a Identity,
    task_name: &'a Name,
    task: &'a Task,
    target_name: &'a Name,
    target: &'a Target,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    May { ttl: Seconds, rules: BTreeSet<String> },
    MayNot { why: BTreeSet<String> },
}

/// The forms and the claims for which the same comes of it.
#[derive(Default)]
struct Alike {
    forms: BTreeSet<&'static str>,
    claims: BTreeSet<String>,
}

impl Case<'_> {
    fn rows(&self, table: &mut String) {
        for clause in &self.identity.proofs {
            let Some(issuer) = self.bundle.declared().issuers.get(&clause.issuer) else { continue };
            let choices = self.claim_choices(clause);
            let mut outcomes: BTreeMap<Outcome, Alike> = BTreeMap::new();
            for claims in &choices {
                for (form, profile, bound) in self.forms() {
                    let alike =
                        outcomes.entry(self.outcome(clause, issuer, claims, profile, bound)).or_default();
                    alike.forms.insert(form);
                    alike.claims.insert(spell(claims));
                }
            }
            for (outcome, alike) in &outcomes {
                let proof = if alike.claims.len() == choices.len() {
                    clause.issuer.to_string()
                } else {
                    format!("{}: {}", clause.issuer, join(&alike.claims, " or "))
                };
                self.row(table, clause, &proof, outcome, &alike.forms);
            }
        }
    }

    fn row(
        &self,
        table: &mut String,
        clause: &ProofClause,
        proof: &str,
        outcome: &Outcome,
        forms: &BTreeSet<&'static str>,
    ) {
        let scope = self.scope(clause);
        let (may, ttl, rules) = match outcome {
            Outcome::May { ttl, rules } if self.task.approval.is_some() => {
                ("after approval", ttl.to_string(), rules)
            }
            Outcome::May { ttl, rules } => ("yes", ttl.to_string(), rules),
            Outcome::MayNot { why } => ("**no**", String::new(), why),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {} | {proof} | {} | {} | {may} | {} | {} | {ttl} | {} | {} |",
            self.identity_name,
            self.task_name,
            self.target_name,
            join(&scope.actions, ", "),
            join(&scope.resources, ", "),
            join(forms, ", "),
            join(rules, ", "),
        );
    }

    fn outcome(
        &self,
        clause: &ProofClause,
        issuer: &Issuer,
        claims: &BTreeMap<String, String>,
        profile: Profile,
        bound: bool,
    ) -> Outcome {
        if self.identity.disabled || issuer.disabled {
            return may_not("(disabled)");
        }
        let may = |node: &Identity| !node.disabled && node.tasks.contains(self.task_name);
        if clause.workload.is_some() && !self.node(clause).is_some_and(may) {
            return may_not("(beyond its node)");
        }
        let granted = self.scope(clause);
        if is_emptied(&granted, &self.task.scope) {
            return may_not("(beyond the supplier's contract)");
        }
        let question = |ttl_s| Question {
            identity_name: self.identity_name,
            task_name: self.task_name,
            target_name: self.target_name,
            issuer_name: &clause.issuer,
            proof_kind: match issuer.kind {
                IssuerKind::Oidc { .. } => ProofKind::IdToken,
                IssuerKind::Nodes if clause.workload.is_some() => ProofKind::Delegated,
                IssuerKind::ClientCa { .. } | IssuerKind::Nodes => ProofKind::Certificate,
            },
            actor: issuer.actor,
            claims,
            granted: &granted,
            ttl_s,
            profile,
            bound,
            emergency: false,
            approved: self.task.approval.is_some(),
        };
        let longest = self.ttl_max(clause);
        let tried = [longest, self.task.ttl_s.min(longest)]
            .map(|ttl| (ttl, self.bundle.rules().evaluate(&question(ttl))));
        match tried {
            [(ttl, Verdict::Permit { rules }), _] | [_, (ttl, Verdict::Permit { rules })] => {
                Outcome::May { ttl, rules }
            }
            [_, (_, Verdict::Forbid { rules })] if rules.is_empty() => may_not("(no rule permits it)"),
            [_, (_, Verdict::Forbid { rules })] => Outcome::MayNot { why: rules },
            [_, (_, Verdict::Error { detail })] => may_not(&detail),
        }
    }

    /// The profiles in which the task may be done, bound to a key or not.
    fn forms(&self) -> impl Iterator<Item = (&'static str, Profile, bool)> {
        let unbound = self.task.bearer;
        self.task.kinds.iter().flat_map(move |profile| match profile {
            Profile::AccessToken if unbound => {
                vec![(profile.as_str(), *profile, true), ("at+jwt unbound", *profile, false)]
            }
            Profile::JwtSvid => vec![("jwt-svid unbound", *profile, false)],
            bound => vec![(bound.as_str(), *bound, true)],
        })
    }

    /// The task's ceiling at this target, within the suppliers'.
    fn scope(&self, clause: &ProofClause) -> Scope {
        let mut scope = self.task.scope.clone();
        scope.audiences = scope.audiences.intersection(&self.target.audiences).cloned().collect();
        self.suppliers(clause).fold(scope, |scope, supplier| scope.intersect(&supplier.ceiling))
    }

    fn ttl_max(&self, clause: &ProofClause) -> Seconds {
        let of_suppliers = self.suppliers(clause).filter_map(|supplier| supplier.ttl_max_s);
        of_suppliers.chain(self.target.ttl_max_s).fold(self.task.ttl_max_s, Seconds::min)
    }

    /// Whose contracts bound it: its own supplier's, and that of the node that speaks for it.
    fn suppliers(&self, clause: &ProofClause) -> impl Iterator<Item = &Supplier> {
        let parties = [Some(self.identity), self.node(clause)].into_iter().flatten();
        parties.filter_map(|it| self.bundle.declared().suppliers.get(it.supplier.as_ref()?))
    }

    fn node(&self, clause: &ProofClause) -> Option<&Identity> {
        self.bundle.declared().identities.get(&clause.workload.as_ref()?.node)
    }

    /// Every way to fill in, as the clause allows, the claims that some rule looks at.
    fn claim_choices(&self, clause: &ProofClause) -> Vec<BTreeMap<String, String>> {
        let looked_at = self.bundle.rules().claims();
        let fixed = clause.claims.iter().filter(|(claim, _)| looked_at.contains(*claim));
        fixed.fold(vec![BTreeMap::new()], |choices, (claim, values)| {
            let with = |choice: &BTreeMap<_, _>, value: &String| {
                let mut choice = choice.clone();
                choice.insert(claim.clone(), value.clone());
                choice
            };
            let all = choices.iter().flat_map(|choice| values.iter().map(move |value| with(choice, value)));
            all.take(CLAIM_CHOICES_MAX).collect()
        })
    }
}

/// Whether the supplier's ceiling leaves nothing of what the task names.
fn is_emptied(left: &Scope, of: &Scope) -> bool {
    left.audiences.is_empty() && !of.audiences.is_empty()
        || left.actions.is_empty() && !of.actions.is_empty()
        || left.resources.is_empty() && !of.resources.is_empty()
}

fn may_not(why: &str) -> Outcome {
    Outcome::MayNot { why: [why.to_owned()].into() }
}

fn spell(claims: &BTreeMap<String, String>) -> String {
    join(claims.iter().map(|(claim, value)| format!("{claim}={value}")), " ")
}

fn join(items: impl IntoIterator<Item = impl ToString>, between: &str) -> String {
    items.into_iter().map(|item| item.to_string().replace('|', "\\|")).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    const INTRODUCTION: &str = "\
# Who may do what

Written from the files beside it; a test fails when it is out of date. To write it anew:
`DAYPASS_BLESS=1 cargo test -p daypass-core access_table`. Each row was tried at the longest lifetime and at the
task's default; an approval that is needed counts as given.

";

    #[test]
    fn a_workload_that_its_node_may_not_speak_for_may_nothing() {
        let of_backup = |file: &str, from: &str, to: &str| {
            let bundle = super::super::compile(&sample::spoiled(file, from, to)).unwrap();
            let table = access_table(&bundle);
            let row = |line: &&str| line.contains("prod/ledger/backup") && line.contains("back-up-ledger");
            table.lines().find(row).unwrap().to_owned()
        };
        let nodes = "identities/nodes.toml";
        assert!(of_backup(nodes, "expires = ", "disabled = false\nexpires = ").contains("| yes |"));
        for (from, to) in [("expires = ", "disabled = true\nexpires = "), (", \"back-up-ledger\"]", "]")] {
            assert!(of_backup(nodes, from, to).contains("**no**"), "{to}");
        }
    }

    #[test]
    fn the_access_table_of_the_sample_says_what_its_files_say() {
        let path = sample::folder().join("who-may-do-what.md");
        let table = format!("{INTRODUCTION}{}", access_table(&sample::bundle()));
        if std::env::var_os("DAYPASS_BLESS").is_some() {
            std::fs::write(&path, &table).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), table, "run with DAYPASS_BLESS=1");
    }
}
