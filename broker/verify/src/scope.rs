//! The scope language: audiences, actions and resources. Exact strings and prefixes that end in `/*`; no
//! pattern, no negation; so whether one scope lies within another is decidable in ten lines.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::checked_text;

checked_text!(
    /// Who a credential is for: an exact string of 1 to 512 printable ASCII characters without spaces.
    Audience,
    "an audience",
    "1 to 512 printable ASCII characters without spaces",
    |text| (1..=512).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
);

impl Audience {
    /// Whether it is an absolute URI without a fragment: what RFC 8707 calls a resource, and what
    /// `locations` of RFC 9396 may hold.
    #[must_use]
    pub fn is_uri(&self) -> bool {
        url::Url::parse(self.as_str()).is_ok_and(|url| url.fragment().is_none())
    }
}

checked_text!(
    /// What a credential lets its holder do: `[a-z0-9._:-]{1,64}`, exact.
    Action,
    "an action",
    "1 to 64 of a-z, 0-9, `.`, `_`, `:` and `-`",
    |text| (1..=64).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b':' | b'-'))
);

checked_text!(
    /// What a credential lets its holder act on: segments of `[A-Za-z0-9._~:@-]{1,64}` joined by `/`, at most
    /// 512 bytes; exact, or a prefix that ends in `/*` after at least one fixed segment.
    Resource,
    "a resource",
    "segments of letters, digits and `._~:@-` (no empty, `.` or `..`), joined by `/`; the last may be `*`",
    is_resource
);

fn is_resource(text: &str) -> bool {
    let segment = |s: &str| {
        (1..=64).contains(&s.len())
            && !matches!(s, "." | "..")
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~:@-".contains(&b))
    };
    text.len() <= 512 && text.strip_suffix("/*").unwrap_or(text).split('/').all(segment)
}

impl Resource {
    /// `eu/` for the prefix `eu/*`; none for an exact resource.
    fn prefix(&self) -> Option<&str> {
        self.as_str().strip_suffix('*')
    }

    /// Whether everything that `self` names is also named by `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self == other || other.prefix().is_some_and(|prefix| self.as_str().starts_with(prefix))
    }

    /// What both name: the narrower of the two where one lies within the other, else nothing.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self.is_within(other), other.is_within(self)) {
            (true, _) => Some(self.clone()),
            (_, true) => Some(other.clone()),
            _ => None,
        }
    }
}

/// Audiences, actions and resources together, each a sorted set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Scope {
    /// Who may be addressed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub audiences: BTreeSet<Audience>,
    /// What may be done.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub actions: BTreeSet<Action>,
    /// What it may be done to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub resources: BTreeSet<Resource>,
}

impl Scope {
    /// What lies in both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        Self {
            audiences: self.audiences.intersection(&other.audiences).cloned().collect(),
            actions: self.actions.intersection(&other.actions).cloned().collect(),
            resources: intersect_resources(&self.resources, &other.resources),
        }
    }

    /// Whether nothing in `self` lies outside `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.audiences.is_subset(&other.audiences)
            && self.actions.is_subset(&other.actions)
            && self.resources.iter().all(|mine| other.resources.iter().any(|theirs| mine.is_within(theirs)))
    }
}

fn intersect_resources(left: &BTreeSet<Resource>, right: &BTreeSet<Resource>) -> BTreeSet<Resource> {
    let common: BTreeSet<Resource> =
        left.iter().flat_map(|a| right.iter().filter_map(move |b| a.intersect(b))).collect();
    let covered = |it: &Resource| common.iter().any(|other| other != it && it.is_within(other));
    common.iter().filter(|it| !covered(it)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(texts: &[&str]) -> BTreeSet<Resource> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_resource_has_one_spelling() {
        for good in ["eu", "eu/*", "eu/invoices/2026", "a@b:c~d"] {
            assert!(good.parse::<Resource>().is_ok(), "{good}");
        }
        for bad in ["", "*", "/*", "a/../b", "./a", "a/%2f", "a//b", "a;x", "a/*/b", "a*", "/a", "a/", "a/**"]
        {
            assert!(bad.parse::<Resource>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_narrower_of_two_prefixes_is_their_intersection() {
        let met =
            intersect_resources(&resources(&["eu/*", "us/a"]), &resources(&["eu/de/*", "us/*", "ap/x"]));
        assert_eq!(met, resources(&["eu/de/*", "us/a"]));
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let within = |a: &str, b: &str| a.parse::<Resource>().unwrap().is_within(&b.parse().unwrap());
        assert!(within("eu/a", "eu/*") && within("eu/a/b", "eu/*") && within("eu/a/*", "eu/*"));
        assert!(!within("eu", "eu/*") && !within("europe/a", "eu/*") && !within("eu/*", "eu/a"));
    }

    #[test]
    fn an_intersection_lies_within_both_sides() {
        let left = Scope { resources: resources(&["eu/*", "us/a"]), ..Scope::default() };
        let right = Scope { resources: resources(&["eu/de/x", "us/*"]), ..Scope::default() };
        let met = left.intersect(&right);
        assert!(met.is_within(&left) && met.is_within(&right));
        assert_eq!(met, right.intersect(&left));
    }
}
