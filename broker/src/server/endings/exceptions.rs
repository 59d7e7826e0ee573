//! How the exceptions of one target stand, as a stream was told last.

use std::collections::BTreeMap;

use daypass_core::bundle::Bundle;
use daypass_proto::v1 as pb;
use daypass_verify::ids::Name;
use daypass_verify::time::UnixMs;

use crate::server::convert::timestamp;

/// Open or not, and until when.
type Standing = (bool, UnixMs);

/// What was told of the exceptions of one target.
pub(super) struct Exceptions {
    target: Name,
    told: BTreeMap<Name, Standing>,
}

impl Exceptions {
    pub(super) fn of(target: Name) -> Self {
        Self { target, told: BTreeMap::new() }
    }

    /// What is to be told at `now`: those that are new, that changed, that came to their end or are declared no more.
    pub(super) fn changes(&mut self, bundle: Option<&Bundle>, now: UnixMs) -> Vec<pb::ExceptionState> {
        let declared = bundle.map(|bundle| &bundle.declared().exceptions);
        let of_target = declared.into_iter().flatten().filter(|(_, it)| it.target == self.target);
        let found: BTreeMap<Name, Standing> =
            of_target.map(|(name, it)| (name.clone(), (it.until_ms > now, it.until_ms))).collect();
        self.take(found)
    }

    fn take(&mut self, found: BTreeMap<Name, Standing>) -> Vec<pb::ExceptionState> {
        if found == self.told {
            return Vec::new();
        }
        let gone = self.told.iter().filter(|(name, _)| !found.contains_key(*name));
        let gone = gone.map(|(name, (_, until))| state(name, (false, *until)));
        let changed = found.iter().filter(|(name, standing)| self.told.get(*name) != Some(standing));
        let changes = gone.chain(changed.map(|(name, standing)| state(name, *standing))).collect();
        self.told = found;
        changes
    }
}

fn state(name: &Name, (open, until): Standing) -> pb::ExceptionState {
    pb::ExceptionState { name: name.to_string(), open, until: Some(timestamp(until)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_an_exception_is_told_once() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let mut exceptions = Exceptions::of(name("erp"));
        let mut told = |found: &[(&str, bool, i64)]| {
            let found = found.iter().map(|(at, open, until)| (name(at), (*open, UnixMs::new(*until))));
            let changes = exceptions.take(found.collect()).into_iter();
            changes.map(|it| (it.name, it.open)).collect::<Vec<_>>()
        };
        let of = |name: &str, open| (name.to_owned(), open);
        assert_eq!(told(&[("a", true, 5), ("b", false, 1)]), [of("a", true), of("b", false)]);
        assert_eq!(told(&[("a", true, 5), ("b", false, 1)]), []);
        assert_eq!(told(&[("a", true, 9), ("b", false, 1)]), [of("a", true)], "its end was moved");
        assert_eq!(told(&[("a", false, 9), ("b", false, 1)]), [of("a", false)], "its end has come");
        assert_eq!(told(&[("b", false, 1)]), [of("a", false)], "it is declared no more");
        assert_eq!(told(&[]), [of("b", false)]);
    }
}
