//! How long things may be: what one cannot see whole, one does not understand.

use super::sources::{Source, program, read, rust};

const FILE_LINES: usize = 400;
/// Tables of spoiled inputs are long, and read row by row.
const TEST_FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 60;

#[test]
fn a_file_is_one_idea() {
    let most = |source: &Source| if source.is_test() { TEST_FILE_LINES } else { FILE_LINES };
    let sources = rust();
    let long: Vec<String> = sources
        .iter()
        .filter(|source| source.text.lines().count() > most(source))
        .map(|source| {
            format!("{} has {} lines, at most {}", source.path, source.text.lines().count(), most(source))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn a_function_is_seen_whole() {
    let sources: Vec<Source> = ["agent", "broker", "proto", "sdk"].into_iter().flat_map(program).collect();
    let long: Vec<String> = sources.iter().flat_map(long_functions).collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn a_long_function_is_found() {
    let body = "        step();\n".repeat(FUNCTION_LINES);
    let text = format!(
        "impl It {{\n    pub(crate) async fn short() {{\n        step();\n    }}\n\n    fn long() {{\n{body}    }}\n}}\n"
    );
    let source = Source { path: "x.rs".into(), text };
    assert_eq!(long_functions(&source), [format!("x.rs: `fn long()` has {} lines", FUNCTION_LINES + 2)]);
}

/// Functions end where a brace stands below their first word: the formatter sees to that.
fn long_functions(source: &Source) -> Vec<String> {
    let lines = source.code();
    let mut long = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if !is_function(line.trim_start()) {
            continue;
        }
        let end = |it: &&str| {
            **it == format!("{}}}", &line[..indent])
                || (it.ends_with(';') && it.len() - it.trim_start().len() == indent)
        };
        let length = lines[at..].iter().position(end).map_or(1, |length| length + 1);
        if length > FUNCTION_LINES {
            let name = line.trim().trim_end_matches(" {").trim_end_matches('(');
            long.push(format!("{}: `{name}` has {length} lines", source.path));
        }
    }
    long
}

fn is_function(line: &str) -> bool {
    let words = ["pub(crate) ", "pub(super) ", "pub ", "const ", "async "];
    let mut rest = line;
    while let Some(after) = words.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = after;
    }
    rest.starts_with("fn ")
}

#[test]
fn pages_that_everybody_reads_are_short() {
    for (page, most) in [("README.md", 200), ("broker/ARCHITECTURE.md", 150)] {
        let lines = read(page).lines().count();
        assert!(lines <= most, "`{page}` has {lines} lines, at most {most}");
    }
}
