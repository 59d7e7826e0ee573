//! Answers on standard output: tables for people, JSON for programs.

use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

use crate::args::Format;
use crate::failure::Failure;

/// How long lines are on a terminal.
const TERMINAL: usize = 80;

/// Standard output, in the format that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a program reads.
    pub(crate) fn is_json(&self) -> bool {
        self.format != Format::Table
    }

    /// Whether the exact bytes of entries were asked for.
    pub(crate) fn is_ndjson(&self) -> bool {
        self.format == Format::Ndjson
    }

    /// One line, or several.
    pub(crate) fn line(&self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Bytes as they are, and a line feed.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }

    /// One JSON value: indented, or on one line for `ndjson`.
    pub(crate) fn json(&self, value: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Ndjson => self.line(&value.to_string()),
            _ => self.line(&format!("{value:#}")),
        }
    }

    /// A sheet as a table or as one JSON object.
    pub(crate) fn sheet(&self, sheet: &Sheet) -> Result<(), Failure> {
        match self.is_json() {
            true => self.json(&sheet.to_json()),
            false => {
                let width = std::io::stdout().is_terminal().then_some(TERMINAL);
                self.line(sheet.to_text(width).trim_end())
            }
        }
    }
}

/// Names with their values, in the order in which they should be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sheet {
    rows: Vec<(String, String)>,
}

impl Sheet {
    /// Adds a row; an empty value adds none.
    pub(crate) fn row(&mut self, name: &str, value: impl ToString) {
        let value = value.to_string();
        if !value.is_empty() {
            self.rows.push((name.to_owned(), value));
        }
    }

    fn to_json(&self) -> Value {
        let member = |(name, value): &(String, String)| (name.replace(' ', "_"), Value::from(value.as_str()));
        Value::Object(self.rows.iter().map(member).collect())
    }

    /// Two columns; what would break a line or a terminal is shown escaped. Values are broken between words where lines
    /// have a length: for people, never for a program that reads a line.
    fn to_text(&self, length: Option<usize>) -> String {
        let width = self.rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let room = length.map_or(usize::MAX, |length| length.saturating_sub(width + 2));
        let next = format!("\n{:width$}  ", "");
        let row = |(name, value): &(String, String)| {
            format!("{name:<width$}  {}\n", broken(&printable(value), room).join(&next))
        };
        self.rows.iter().map(row).collect()
    }
}

/// Lines of at most so many characters, or of one word.
fn broken(text: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Text from elsewhere, without control characters: a claim must not be able to move a cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A JSON value as people write it: text without quotes, the rest as JSON.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A set on one line.
pub(crate) fn joined<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|it| it.to_string()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> Sheet {
        let mut sheet = Sheet::default();
        sheet.row("task", "post-invoices");
        sheet.row("live until", "soon\u{1b}[2J\nnow");
        sheet.row("nothing", "");
        sheet
    }

    #[test]
    fn a_table_has_two_columns_and_moves_no_cursor() {
        assert_eq!(sheet().to_text(None), "task        post-invoices\nlive until  soon\\u{1b}[2J\\nnow\n");
    }

    #[test]
    fn a_long_value_is_broken_between_words_for_a_terminal_alone() {
        let mut sheet = Sheet::default();
        sheet.row("ids", "0123456789 0123456789 01234567890123456789 0");
        assert_eq!(
            sheet.to_text(Some(20)),
            "ids  0123456789\n     0123456789\n     01234567890123456789\n     0\n"
        );
        assert_eq!(sheet.to_text(None).lines().count(), 1);
    }

    #[test]
    fn a_program_reads_the_same_rows_as_one_object() {
        assert_eq!(
            sheet().to_json(),
            serde_json::json!({ "task": "post-invoices", "live_until": "soon\u{1b}[2J\nnow" })
        );
    }
}
