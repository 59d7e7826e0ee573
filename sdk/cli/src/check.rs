//! `daypass check`: the files of a bundle, compiled offline as the broker would.

use std::path::Path;

use daypass_core::bundle::{self, Bundle, Finding, SourceFile};
use serde_json::json;

use crate::failure::Failure;
use crate::output::Output;

/// Prints every finding with file and line; a bundle that would be refused is a refusal.
pub(crate) fn run(directory: &Path, out: &Output) -> Result<(), Failure> {
    let mut files = Vec::new();
    read_into(directory, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let compiled = bundle::compile(&files);
    let findings = match &compiled {
        Ok(bundle) => bundle.warnings(),
        Err(findings) => findings.as_slice(),
    };
    match out.is_json() {
        true => out.json(&as_json(compiled.as_ref().ok(), findings))?,
        false => print(compiled.as_ref().ok(), findings, out)?,
    }
    let errors = findings.iter().filter(|finding| finding.refuses).count();
    let refused =
        || Failure::Refused(format!("the bundle is refused: {errors} error(s) in `{}`", directory.display()));
    compiled.map(|_| ()).map_err(|_| refused())
}

fn print(bundle: Option<&Bundle>, findings: &[Finding], out: &Output) -> Result<(), Failure> {
    for finding in findings {
        out.line(&finding.to_string())?;
    }
    let Some(bundle) = bundle else { return Ok(()) };
    let declared = bundle.declared();
    out.line(&format!(
        "{}: {} identities, {} tasks, {} targets, {} rules, {} warning(s)",
        bundle.digest(),
        declared.identities.len(),
        declared.tasks.len(),
        declared.targets.len(),
        bundle.rules().count(),
        findings.len()
    ))
}

fn as_json(bundle: Option<&Bundle>, findings: &[Finding]) -> serde_json::Value {
    let finding = |it: &Finding| json!({ "path": it.path, "line": it.line, "code": it.code, "message": it.message, "refuses": it.refuses });
    json!({
        "digest": bundle.map(Bundle::digest),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

/// Every file below `directory`. What is hidden is no part of a bundle, and neither is what a link leads to.
fn read_into(directory: &Path, prefix: &str, files: &mut Vec<SourceFile>) -> Result<(), Failure> {
    let refuse = |error| Failure::Usage(format!("cannot read the folder `{}`: {error}", directory.display()));
    for entry in std::fs::read_dir(directory).map_err(refuse)? {
        let entry = entry.map_err(refuse)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(refuse)?;
        let path = format!("{prefix}{name}");
        if name.starts_with('.') || kind.is_symlink() {
            continue;
        }
        if kind.is_dir() {
            read_into(&entry.path(), &format!("{path}/"), files)?;
        } else {
            files.push(SourceFile { text: read(&entry.path())?, path });
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    let shown = path.display();
    let too_long = std::fs::metadata(path).is_ok_and(|it| it.len() > bundle::FILE_LEN_MAX);
    if too_long {
        return Err(Failure::Usage(format!("`{shown}` is too long: expected at most 8 MiB")));
    }
    std::fs::read_to_string(path).map_err(|error| Failure::Usage(format!("cannot read `{shown}`: {error}")))
}
