//! Verdicts that were given before. Rules and what is declared never change within a bundle, so the same question
//! has the same answer; workloads ask the same question all day, and evaluation is most of what a decision costs.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::{PoisonError, RwLock};

use daypass_evidence::entry::{Actor, Profile, ProofKind};
use daypass_verify::ids::{IdentityName, Name};
use daypass_verify::scope::Scope;
use daypass_verify::time::Seconds;

use super::{Question, Verdict};

/// How many verdicts are kept: about 8 MB of the largest questions, a few hundred KB of usual ones. When it is full
/// it starts anew, so that nobody's questions are worth more than their place.
const KEPT: usize = 4_096;

/// Verdicts by the hash of their question: whoever makes two collide only has one of them worked out again. A clone starts empty.
#[derive(Debug, Default)]
pub(super) struct Memo {
    verdicts: RwLock<HashMap<u64, (Asked, Verdict)>>,
}

impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Memo {
    /// The verdict on `question`, worked out by `evaluate` unless the very same was asked before.
    pub(super) fn recall(&self, question: &Question<'_>, evaluate: impl FnOnce() -> Verdict) -> Verdict {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(question);
        let kept = self.verdicts.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, verdict)) = kept.get(&hash).filter(|(asked, _)| asked.is(question)) {
            return verdict.clone();
        }
        drop(kept);
        let verdict = evaluate();
        let mut kept = self.verdicts.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(hash, (Asked::from(question), verdict.clone()));
        verdict
    }
}

/// A question that outlives its request.
#[derive(Debug)]
struct Asked {
    identity_name: IdentityName,
    task_name: Name,
    target_name: Name,
    issuer_name: Name,
    proof_kind: ProofKind,
    actor: Actor,
    claims: BTreeMap<String, String>,
    granted: Scope,
    ttl_s: Seconds,
    profile: Profile,
    bound: bool,
    emergency: bool,
    approved: bool,
}

impl From<&Question<'_>> for Asked {
    fn from(question: &Question<'_>) -> Self {
        // Taken apart by name: a field that is added to a question cannot be forgotten here.
        let Question {
            identity_name,
            task_name,
            target_name,
            issuer_name,
            proof_kind,
            actor,
            claims,
            granted,
            ttl_s,
            profile,
            bound,
            emergency,
            approved,
        } = *question;
        Self {
            identity_name: identity_name.clone(),
            task_name: task_name.clone(),
            target_name: target_name.clone(),
            issuer_name: issuer_name.clone(),
            proof_kind,
            actor,
            claims: claims.clone(),
            granted: granted.clone(),
            ttl_s,
            profile,
            bound,
            emergency,
            approved,
        }
    }
}

impl Asked {
    /// Two questions may share a hash; never a verdict.
    fn is(&self, question: &Question<'_>) -> bool {
        let own = Question {
            identity_name: &self.identity_name,
            task_name: &self.task_name,
            target_name: &self.target_name,
            issuer_name: &self.issuer_name,
            proof_kind: self.proof_kind,
            actor: self.actor,
            claims: &self.claims,
            granted: &self.granted,
            ttl_s: self.ttl_s,
            profile: self.profile,
            bound: self.bound,
            emergency: self.emergency,
            approved: self.approved,
        };
        own == *question
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn with_every_question(each: &mut dyn FnMut(&Question<'_>)) {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let (identity, other) = ("a/b".parse().unwrap(), "a/c".parse().unwrap());
        let (first, second) = (name("first"), name("second"));
        let (claims, more) = (BTreeMap::new(), [("event".to_owned(), "push".to_owned())].into());
        let (granted, wider) =
            (Scope::default(), Scope { actions: ["read".parse().unwrap()].into(), ..Scope::default() });
        let base = Question {
            identity_name: &identity,
            task_name: &first,
            target_name: &first,
            issuer_name: &first,
            proof_kind: ProofKind::IdToken,
            actor: Actor::Workload,
            claims: &claims,
            granted: &granted,
            ttl_s: Seconds::new(900),
            profile: Profile::AccessToken,
            bound: true,
            emergency: false,
            approved: false,
        };
        for question in [
            base,
            Question { identity_name: &other, ..base },
            Question { task_name: &second, ..base },
            Question { target_name: &second, ..base },
            Question { issuer_name: &second, ..base },
            Question { proof_kind: ProofKind::Certificate, ..base },
            Question { actor: Actor::Person, ..base },
            Question { claims: &more, ..base },
            Question { granted: &wider, ..base },
            Question { ttl_s: Seconds::new(901), ..base },
            Question { profile: Profile::JwtSvid, ..base },
            Question { bound: false, ..base },
            Question { emergency: true, ..base },
            Question { approved: true, ..base },
        ] {
            each(&question);
        }
    }

    fn verdict(number: usize) -> Verdict {
        Verdict::Permit { rules: BTreeSet::from([number.to_string()]) }
    }

    #[test]
    fn a_question_that_differs_in_anything_is_worked_out_for_itself() {
        let memo = Memo::default();
        let mut asked = 0;
        with_every_question(&mut |question| {
            asked += 1;
            assert_eq!(memo.recall(question, || verdict(asked)), verdict(asked), "{question:?}");
        });
        let mut recalled = 0;
        with_every_question(&mut |question| {
            recalled += 1;
            let answer = memo.recall(question, || unreachable!("it was asked before"));
            assert_eq!(answer, verdict(recalled), "{question:?}");
        });
    }

    #[test]
    fn however_much_is_asked_no_more_is_kept_than_there_is_room_for() {
        let memo = Memo::default();
        for ttl_s in 1..=2 * u32::try_from(KEPT).unwrap() {
            with_every_question(&mut |question| {
                if question.approved {
                    memo.recall(&Question { ttl_s: Seconds::new(ttl_s), ..*question }, || verdict(0));
                }
            });
        }
        assert!(memo.verdicts.read().unwrap().len() <= KEPT);
    }
}
