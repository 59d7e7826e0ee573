//! From plain files to declared objects. A file may hold objects of any type, each under a header that names it
//! (`[task.post-invoices]`); the folders are for the reader.

mod issuer;
mod party;
mod task;
mod workload;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::str::FromStr;

use daypass_verify::ids::ParseError;
use toml::de::{DeTable, DeValue};

use super::finding::did_you_mean;
use super::object::{Declared, Settings};
use super::page::Page;
use super::places::{Kind, Places};
use super::section::{Notes, Section};
use super::value::Days;
use super::{Finding, SourceFile};
use crate::policy;

/// What the files say.
pub(super) struct Sources {
    pub(super) declared: Declared,
    pub(super) places: Places,
    pub(super) findings: Vec<Finding>,
    /// Paths and texts of the rules, in the order of their paths.
    pub(super) rules: Vec<(String, String)>,
}

/// The code of a finding about a file of which nothing could be read.
pub(super) const SYNTAX: &str = "syntax";

const KINDS: [Kind; 9] =
    ["organisation", "identity", "task", "target", "issuer", "supplier", "exception", "owner", "operator"];

/// Reads every file; whatever is wrong is among the findings, and the rest is read all the same.
pub(super) fn read(files: &[SourceFile]) -> Sources {
    let notes = Notes::default();
    let mut reading = Reading { notes: &notes, files, declared: nothing_declared(), rules: Vec::new() };
    for file in files {
        reading.file(file);
    }
    if notes.places.borrow().object("organisation", "").is_none() {
        reading.refuse_bundle(
            "nothing says `[organisation]`: declare its `environments` and what an overdue review does",
        );
    }
    let Reading { declared, mut rules, .. } = reading;
    rules.sort();
    Sources { declared, places: notes.places.into_inner(), findings: notes.findings.into_inner(), rules }
}

struct Reading<'a> {
    notes: &'a Notes,
    files: &'a [SourceFile],
    declared: Declared,
    rules: Vec<(String, String)>,
}

impl<'a> Reading<'a> {
    fn file(&mut self, file: &'a SourceFile) {
        let extension = file.path.rsplit_once('.').map_or("", |(_, extension)| extension);
        match extension {
            "toml" => self.objects(file),
            "cedar" if file.text.trim().is_empty() => {
                self.refuse_file(file, "holds no rule: write one or remove the file");
            }
            "cedar" => self.rules.push((file.path.clone(), file.text.clone())),
            "cedarschema" if file.text == policy::SCHEMA => {}
            "cedarschema" => {
                self.refuse_file(file, "differs from the schema that this version evaluates: restore it, rules can look at nothing else");
            }
            "pem" | "json" | "md" => {}
            _ => self.refuse_file(
                file,
                "is of no known type: expected .toml, .cedar, .cedarschema, .pem, .json or .md",
            ),
        }
    }

    fn objects(&mut self, file: &'a SourceFile) {
        let page = &Page::new(&file.path, &file.text);
        let (document, errors) = DeTable::parse_recoverable(&file.text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            let message = format!("not TOML: {}", error.message().replace('\n', ", "));
            self.notes.refuse(SYNTAX, page, offset, message);
        }
        if errors.is_empty() {
            for (kind, value) in document.get_ref() {
                self.kind(page, kind.get_ref().as_ref(), kind.span().start, value.get_ref());
            }
        }
    }

    fn kind(&mut self, page: &Page<'_>, written: &str, offset: usize, value: &DeValue<'_>) {
        let Some(kind) = KINDS.into_iter().find(|kind| *kind == written) else {
            let near = did_you_mean(written, KINDS, &format!("expected one of `{}`", KINDS.join("`, `")));
            let message = format!("unknown type of object `{written}`{near}");
            return self.notes.refuse("unknown-key", page, offset, message);
        };
        let Some(table) = value.as_table() else {
            let message = format!("`{kind}` is {}: expected a table, `[{kind}…]`", value.type_str());
            return self.notes.refuse("wrong-value", page, offset, message);
        };
        if kind == "organisation" {
            return self.object(page, (kind, ""), offset, table);
        }
        for (name, object) in table {
            let (name, offset) = (name.get_ref().as_ref(), name.span().start);
            match object.get_ref().as_table() {
                Some(table) => self.object(page, (kind, name), offset, table),
                None => {
                    let message = format!("`{kind}.{name}` is no table: expected `[{kind}.NAME]`");
                    self.notes.refuse("wrong-value", page, offset, message);
                }
            }
        }
    }

    fn object(&mut self, page: &Page<'_>, (kind, name): (Kind, &str), offset: usize, table: &DeTable<'_>) {
        if let Some((path, line)) = self.notes.places.borrow().object(kind, name) {
            let message = format!("{kind} `{name}` is declared at {path}:{line} already: declare it once");
            return self.notes.refuse("declared-twice", page, offset, message);
        }
        let mut section = Section::new(self.notes, page, (kind, name), offset, table);
        let into = &mut self.declared;
        let named = match kind {
            "organisation" => keep_settings(&mut into.settings, settings(&mut section)),
            "identity" => keep(&mut into.identities, name, workload::identity(&mut section)),
            "task" => keep(&mut into.tasks, name, task::task(&mut section)),
            "target" => keep(&mut into.targets, name, task::target(&mut section)),
            "issuer" => keep(&mut into.issuers, name, issuer::issuer(&mut section, self.files)),
            "supplier" => keep(&mut into.suppliers, name, party::supplier(&mut section)),
            "exception" => keep(&mut into.exceptions, name, party::exception(&mut section)),
            "owner" => keep(&mut into.owners, name, party::owner(&mut section)),
            _ => keep(&mut into.operators, name, workload::operator(&mut section)),
        };
        section.finish();
        if let Err(error) = named {
            self.notes.refuse("wrong-name", page, offset, error.to_string());
        }
    }

    fn refuse_file(&self, file: &SourceFile, what: &str) {
        let page = Page::new(&file.path, "");
        self.notes.refuse("file", &page, 0, format!("`{}` {what}", file.path));
    }

    fn refuse_bundle(&self, what: &str) {
        let finding = Finding {
            path: "bundle".into(),
            line: 0,
            code: "missing-key",
            message: what.into(),
            refuses: true,
        };
        self.notes.findings.borrow_mut().push(finding);
    }
}

/// Keeps an object under its name; what could not be read was noted where it stands.
fn keep<K: FromStr<Err = ParseError> + Ord, V>(
    into: &mut BTreeMap<K, V>,
    name: &str,
    object: Option<V>,
) -> Result<(), ParseError> {
    let name = name.parse()?;
    if let (Entry::Vacant(slot), Some(object)) = (into.entry(name), object) {
        slot.insert(object);
    }
    Ok(())
}

fn keep_settings(into: &mut Settings, settings: Option<Settings>) -> Result<(), ParseError> {
    if let Some(settings) = settings {
        *into = settings;
    }
    Ok(())
}

fn settings(section: &mut Section<'_>) -> Option<Settings> {
    let environments = section.required_set("environments");
    let overdue_ttl_max_s = section.required("overdue_ttl_max");
    let overdue_refuse = section.required::<Days>("overdue_refuse_after");
    Some(Settings {
        overdue_ttl_max_s: overdue_ttl_max_s?,
        overdue_refuse_days: overdue_refuse?.0,
        environments,
    })
}

fn nothing_declared() -> Declared {
    let settings = Settings {
        overdue_ttl_max_s: daypass_verify::time::Seconds::new(0),
        overdue_refuse_days: 0,
        environments: std::collections::BTreeSet::new(),
    };
    Declared {
        settings,
        identities: BTreeMap::new(),
        tasks: BTreeMap::new(),
        targets: BTreeMap::new(),
        issuers: BTreeMap::new(),
        suppliers: BTreeMap::new(),
        exceptions: BTreeMap::new(),
        owners: BTreeMap::new(),
        operators: BTreeMap::new(),
    }
}
