//! One table of a file, read key by key. Everything wrong in it is noted and reading goes on, so that one run
//! shows all there is to mend; a key that nobody asked for is refused with the nearest that is known.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::Finding;
use super::finding::did_you_mean;
use super::page::Page;
use super::places::{Kind, Places};
use super::value::Value;

/// Where sections leave what they find.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) findings: RefCell<Vec<Finding>>,
    pub(super) places: RefCell<Places>,
}

impl Notes {
    /// Notes something that refuses the bundle.
    pub(super) fn refuse(&self, code: &'static str, page: &Page<'_>, offset: usize, message: String) {
        let (path, line) = (page.path.to_owned(), page.line(offset));
        let finding = Finding { path, line, code, message, refuses: true };
        self.findings.borrow_mut().push(finding);
    }
}

/// A table that describes one object, or a part of one.
pub(super) struct Section<'a> {
    notes: &'a Notes,
    page: &'a Page<'a>,
    kind: Kind,
    name: &'a str,
    prefix: String,
    offset: usize,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
    given_up: bool,
}

impl<'a> Section<'a> {
    /// The table of the object `name`, whose header stands at `offset`.
    pub(super) fn new(
        notes: &'a Notes,
        page: &'a Page<'a>,
        (kind, name): (Kind, &'a str),
        offset: usize,
        table: &'a DeTable<'a>,
    ) -> Self {
        let section = Self {
            notes,
            page,
            kind,
            name,
            prefix: String::new(),
            offset,
            table,
            known: Vec::new(),
            given_up: false,
        };
        section.place("", offset);
        section
    }

    /// The value of a key that may be left out.
    pub(super) fn optional<T: Value>(&mut self, key: &'static str) -> Option<T> {
        let value = self.raw(key)?;
        self.read(key, value)
    }

    /// The value of a key that may not be left out.
    pub(super) fn required<T: Value>(&mut self, key: &'static str) -> Option<T> {
        if self.raw(key).is_none() {
            self.missing(key);
        }
        self.optional(key)
    }

    /// The value of a key that may be left out where there is a default.
    pub(super) fn defaulting<T: Value>(&mut self, key: &'static str, default: Option<T>) -> Option<T> {
        match default {
            Some(default) => self.optional(key).or(Some(default)),
            None => self.required(key),
        }
    }

    /// Whether a switch is on; left out: off.
    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        self.optional(key).unwrap_or(false)
    }

    /// A list of values without repetition; left out: empty.
    pub(super) fn set<T: Value + Ord>(&mut self, key: &'static str) -> BTreeSet<T> {
        let Some(value) = self.raw(key) else { return BTreeSet::new() };
        self.elements(key, value)
    }

    /// A list of at least one value.
    pub(super) fn required_set<T: Value + Ord>(&mut self, key: &'static str) -> BTreeSet<T> {
        match self.raw(key) {
            Some(value) if value.get_ref().as_array().is_none_or(|list| !list.is_empty()) => self.set(key),
            Some(value) => {
                self.wrong(key, value.span().start, "empty: expected at least one".into());
                BTreeSet::new()
            }
            None => {
                self.missing(key);
                BTreeSet::new()
            }
        }
    }

    /// A list of values, or one value alone, behind a key that only the file knows.
    pub(super) fn elements<T: Value + Ord>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> BTreeSet<T> {
        let mut set = BTreeSet::new();
        let list = value.get_ref().as_array().map_or_else(|| vec![value], |list| list.iter().collect());
        for element in list {
            if let Some(text) = element.get_ref().as_str() {
                self.place(&format!("{key}.{text}"), element.span().start);
            }
            if let Some(read) = self.read(key, element)
                && !set.insert(read)
            {
                self.wrong(key, element.span().start, "listed twice: expected each value once".into());
            }
        }
        set
    }

    /// The tables in a list of tables that may not be left out; none when there is no such list.
    pub(super) fn required_sections(&mut self, key: &'static str) -> Option<Vec<Section<'a>>> {
        let Some(value) = self.raw(key) else {
            self.missing(key);
            return None;
        };
        let Some(list) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.wrong(key, value.span().start, format!("{found}: expected a list of tables"));
            return None;
        };
        let part = |(at, item): (usize, &'a Spanned<DeValue<'a>>)| self.part(&format!("{key}.{at}"), item);
        Some(list.iter().enumerate().filter_map(part).collect())
    }

    /// The table behind a key; left out: none.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let value = self.raw(key)?;
        self.part(key, value)
    }

    /// The keys and values of a table whose keys are names that only the file knows.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Spanned<DeValue<'a>>)> + use<'a> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), value))
    }

    /// The value behind `key`, as it is written.
    pub(super) fn raw(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let (written, value) = self.table.iter().find(|(it, _)| it.get_ref().as_ref() == key)?;
        self.place(key, written.span().start);
        Some(value)
    }

    /// Notes that the value of `key` is wrong.
    pub(super) fn wrong(&self, key: &str, offset: usize, what: String) {
        let message = format!("{}: `{}{key}`: {what}", self.title(), self.prefix);
        self.notes.refuse("wrong-value", self.page, offset, message);
    }

    /// Notes that `key`, which stands in this table, does not hold together with the others.
    pub(super) fn conflict(&self, key: &str, what: &str) {
        let (_, line) =
            self.notes.places.borrow().nearest(self.kind, self.name, &format!("{}{key}", self.prefix));
        let message = format!("{}: `{}{key}` {what}", self.title(), self.prefix);
        let path = self.page.path.to_owned();
        self.notes.findings.borrow_mut().push(Finding {
            path,
            line,
            code: "wrong-value",
            message,
            refuses: true,
        });
    }

    /// Stops reading: what the other keys mean hangs on one that could not be read.
    pub(super) fn give_up(&mut self) {
        self.given_up = true;
    }

    /// Ends the reading: whatever key was not asked for is refused.
    pub(super) fn finish(self) {
        if self.given_up {
            return;
        }
        let expected = format!("expected one of `{}`", self.known.join("`, `"));
        for key in self.table.keys() {
            let written = key.get_ref().as_ref();
            if !self.known.contains(&written) {
                let near = did_you_mean(written, self.known.iter().copied(), &expected);
                let message = format!("{}: unknown key `{}{written}`{near}", self.title(), self.prefix);
                self.notes.refuse("unknown-key", self.page, key.span().start, message);
            }
        }
    }

    fn read<T: Value>(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<T> {
        T::read(value.get_ref()).map_err(|what| self.wrong(key, value.span().start, what)).ok()
    }

    fn part(&self, key: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Section<'a>> {
        let offset = value.span().start;
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(key, offset, format!("{}: expected a table", value.get_ref().type_str()));
            return None;
        };
        self.place(key, offset);
        let prefix = format!("{}{key}.", self.prefix);
        Some(Section { prefix, offset, table, known: Vec::new(), ..*self })
    }

    fn missing(&self, key: &str) {
        let message = format!("{}: `{}{key}` is missing: it must be declared", self.title(), self.prefix);
        self.notes.refuse("missing-key", self.page, self.offset, message);
    }

    fn place(&self, key: &str, offset: usize) {
        let place = (self.page.path.to_owned(), self.page.line(offset));
        self.notes.places.borrow_mut().note(self.kind, self.name, &format!("{}{key}", self.prefix), place);
    }

    fn title(&self) -> String {
        if self.name.is_empty() { self.kind.to_owned() } else { format!("{} `{}`", self.kind, self.name) }
    }
}
