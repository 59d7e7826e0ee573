//! One table of the file, read key by key. Everything wrong in it is noted and reading goes on, so that one run shows
//! all there is to mend; a key that nobody asked for is refused with the nearest that is known.

use std::cell::RefCell;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fault;
use super::value::{Value, did_you_mean};

/// The text of the file, and what was found wrong in it.
pub(super) struct Notes<'a> {
    text: &'a str,
    faults: RefCell<Vec<Fault>>,
}

impl<'a> Notes<'a> {
    pub(super) fn on(text: &'a str) -> Self {
        Self { text, faults: RefCell::default() }
    }

    /// Notes that something at `offset` cannot be.
    pub(super) fn refuse(&self, offset: usize, message: String) {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        self.faults.borrow_mut().push(Fault { line, message });
    }

    /// What was noted, from the top of the file to its end.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| fault.line);
        faults
    }
}

/// A table.
pub(super) struct Section<'a> {
    notes: &'a Notes<'a>,
    title: String,
    offset: usize,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The table of the whole file.
    pub(super) fn whole(notes: &'a Notes<'a>, table: &'a DeTable<'a>) -> Self {
        Self { notes, title: String::new(), offset: 0, table, known: Vec::new() }
    }

    /// The value of a key that may be left out.
    pub(super) fn optional<T: Value>(&mut self, key: &'static str) -> Option<T> {
        let value = self.raw(key)?;
        self.read(key, value)
    }

    /// The value of a key that may not be left out.
    pub(super) fn required<T: Value>(&mut self, key: &'static str, expected: &str) -> Option<T> {
        if self.raw(key).is_none() {
            self.notes.refuse(self.offset, format!("{}`{key}` is missing: expected {expected}", self.title));
        }
        self.optional(key)
    }

    /// A list; left out: empty.
    pub(super) fn list<T: Value>(&mut self, key: &'static str) -> Vec<T> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.wrong(key, &format!("{found}: expected a list, in `[` and `]`"));
            return Vec::new();
        };
        list.iter().filter_map(|element| self.read(key, element)).collect()
    }

    /// The table behind a key; left out: none.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let value = self.raw(key)?;
        self.part(key, value)
    }

    /// The tables in a list of tables; left out: none.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        let Some(list) = value.get_ref().as_array() else {
            self.wrong(key, &format!("expected one or more `[[{key}]]`, with two brackets"));
            return Vec::new();
        };
        list.iter().filter_map(|item| self.part(key, item)).collect()
    }

    /// Whether the key is there.
    pub(super) fn has(&mut self, key: &'static str) -> bool {
        self.raw(key).is_some()
    }

    /// What errors call this table from now on.
    pub(super) fn call(&mut self, title: &str) {
        title.clone_into(&mut self.title);
        self.title.push_str(": ");
    }

    /// Notes that the value of `key` cannot be.
    pub(super) fn wrong(&self, key: &str, what: &str) {
        let at = self.table.iter().find(|(it, _)| it.get_ref().as_ref() == key);
        let offset = at.map_or(self.offset, |(written, _)| written.span().start);
        self.notes.refuse(offset, format!("{}`{key}`: {what}", self.title));
    }

    /// Notes that this table as a whole cannot be.
    pub(super) fn refuse(&self, what: &str) {
        self.notes.refuse(self.offset, format!("{}{what}", self.title));
    }

    /// Whether nothing was found wrong yet, in the whole file.
    pub(super) fn is_clean(&self) -> bool {
        self.notes.faults.borrow().is_empty()
    }

    /// Ends the reading: whatever key was not asked for is refused.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let written = key.get_ref().as_ref();
            if !self.known.contains(&written) {
                let near = did_you_mean(written, self.known.iter().copied());
                let message = format!("{}`{}` is no key here{near}", self.title, written.escape_debug());
                self.notes.refuse(key.span().start, message);
            }
        }
    }

    fn raw(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table.iter().find(|(it, _)| it.get_ref().as_ref() == key).map(|(_, value)| value)
    }

    fn read<T: Value>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<T> {
        let wrong = |what| self.notes.refuse(value.span().start, format!("{}`{key}`: {what}", self.title));
        T::read(value.get_ref()).map_err(wrong).ok()
    }

    fn part(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Section<'a>> {
        let (offset, title) = (value.span().start, format!("{}`{key}`: ", self.title));
        let Some(table) = value.get_ref().as_table() else {
            self.notes.refuse(offset, format!("{title}{}: expected a table", value.get_ref().type_str()));
            return None;
        };
        Some(Section { notes: self.notes, title, offset, table, known: Vec::new() })
    }
}
