//! Where in the files each declared thing stands, so that whatever is found later can name a file and a line.

use std::collections::BTreeMap;

/// The type of a declared object as files spell it: `identity`, `task` and so on, or `organisation`.
pub(super) type Kind = &'static str;

/// A file and a line from 1.
pub(super) type Place = (String, u32);

/// The place of each object and of each of its keys.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<(Kind, String), BTreeMap<String, Place>>);

impl Places {
    /// Notes where `key` of an object stands; the object itself is the empty key.
    pub(super) fn note(&mut self, kind: Kind, name: &str, key: &str, place: Place) {
        self.0.entry((kind, name.to_owned())).or_default().insert(key.to_owned(), place);
    }

    /// Where the object stands, if it was declared at all, however badly.
    pub(super) fn object(&self, kind: Kind, name: &str) -> Option<&Place> {
        self.0.get(&(kind, name.to_owned()))?.get("")
    }

    /// Where `key` of an object stands, else the key that holds it, else the object; a bundle that was read back
    /// from its object has no places.
    pub(super) fn nearest(&self, kind: Kind, name: &str, key: &str) -> Place {
        let keys = self.0.get(&(kind, name.to_owned()));
        let holders = std::iter::successors(Some(key), |key| key.rsplit_once('.').map(|(holder, _)| holder));
        keys.and_then(|keys| holders.chain([""]).find_map(|key| keys.get(key)))
            .cloned()
            .unwrap_or_else(|| ("bundle".to_owned(), 0))
    }
}
