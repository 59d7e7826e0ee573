//! The files of a bundle, as they lie in a folder: all of them, so that none is passed over in silence.

use std::path::Path;

use daypass_core::bundle::{Bundle, FILE_LEN_MAX, Finding, SourceFile, compile};

use super::Failure;

/// Reads and compiles the bundle in `folder`.
pub(super) fn read_bundle(folder: &Path) -> Result<Bundle, Failure> {
    compile(&files_of(folder)?).map_err(|findings: Vec<Finding>| {
        Failure::Bundle(findings.iter().map(|finding| format!("  {finding}")).collect::<Vec<_>>().join("\n"))
    })
}

/// All its files, by their paths.
pub(super) fn files_of(folder: &Path) -> Result<Vec<SourceFile>, Failure> {
    let mut files = Vec::new();
    read_into(folder, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Every file below `folder`, as `daypass check` reads them. What is hidden is no part of a bundle, and neither is
/// what a link leads to.
fn read_into(folder: &Path, prefix: &str, files: &mut Vec<SourceFile>) -> Result<(), Failure> {
    let refuse = |error| Failure::File(folder.display().to_string(), error);
    for entry in std::fs::read_dir(folder).map_err(refuse)? {
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
    let refuse = |error| Failure::File(path.display().to_string(), error);
    if std::fs::metadata(path).map_err(refuse)?.len() > FILE_LEN_MAX {
        return Err(refuse(std::io::Error::other("it is too long: expected at most 8 MiB")));
    }
    std::fs::read_to_string(path).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        let mut files = Vec::new();
        read_into(&policies, "", &mut files).unwrap();
        for file in files {
            let path = folder.path().join(file.path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file.text).unwrap();
        }
        folder
    }

    #[test]
    fn a_bundle_whose_issuer_names_a_file_of_keys_is_read_with_that_file() {
        let folder = sample();
        let issuer = "[issuer.other]\nkind = \"oidc\"\nurl = \"https://other.example.org\"\nenvironment = \"prod\"\n\
                      algs = [\"ES256\"]\nproof_ttl_max = \"10m\"\njwks_file = \"issuers/other.json\"\n";
        std::fs::write(folder.path().join("issuers/other.toml"), issuer).unwrap();
        assert!(read_bundle(folder.path()).is_err());
        std::fs::write(folder.path().join("issuers/other.json"), r#"{"keys":[]}"#).unwrap();
        read_bundle(folder.path()).unwrap();
    }

    #[test]
    fn a_file_that_no_person_wrote_is_refused_before_it_is_read() {
        let folder = sample();
        let file = std::fs::File::create(folder.path().join("long.toml")).unwrap();
        file.set_len(FILE_LEN_MAX + 1).unwrap();
        assert!(read_bundle(folder.path()).unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn a_file_of_unknown_type_is_refused_and_a_hidden_one_is_no_part_of_the_bundle() {
        let folder = sample();
        std::fs::write(folder.path().join(".notes.txt"), "x").unwrap();
        read_bundle(folder.path()).unwrap();
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        assert!(read_bundle(folder.path()).unwrap_err().to_string().contains("notes.txt"));
    }
}
