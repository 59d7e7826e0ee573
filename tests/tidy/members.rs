//! What every crate of the workspace shares, and what no file may say.

use super::graph::{METADATA, packages};
use super::sources::{all, read, top};

#[test]
fn every_crate_keeps_the_lints_and_is_not_published() {
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        let manifest = package["manifest_path"].as_str().unwrap();
        let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(manifest).unwrap()).unwrap();
        let name = &package["name"];
        let inherits = |section: &str, key: &str| {
            manifest[section].get(key).is_some_and(|it| {
                it.as_bool() == Some(true) || it.get("workspace").and_then(toml::Value::as_bool) == Some(true)
            })
        };
        assert!(inherits("lints", "workspace"), "{name} has lints of its own");
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            assert!(inherits("package", key), "{name} has a `{key}` of its own");
        }
    }
}

#[test]
fn every_folder_with_a_manifest_is_a_member() {
    let members = METADATA["workspace_members"].as_array().unwrap().len();
    let manifests = all().iter().filter(|it| it.path.ends_with("/Cargo.toml")).count();
    assert_eq!(members, manifests);
}

#[test]
fn the_api_is_these_files() {
    let protos: Vec<String> =
        all().into_iter().map(|it| it.path).filter(|it| it.ends_with(".proto")).collect();
    let expected = ["credential", "evidence", "governance", "registry", "trust"];
    let mut expected: Vec<_> = expected.iter().map(|name| format!("proto/daypass/v1/{name}.proto")).collect();
    // Not ours: an API that others have defined.
    expected.push("proto/spiffe/workload.proto".into());
    assert_eq!(protos, expected);
}

/// Folders of one machine and hosts of registries: put together here, as this file is looked at too.
const FOREIGN: &[&str] = &[
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/home", "/"),
    concat!("index.cra", "tes.io"),
    concat!("static.cra", "tes.io"),
    concat!("py", "pi.org"),
    concat!("pythonho", "sted"),
];

#[test]
fn no_file_names_a_machine_or_a_registry() {
    let found: Vec<String> = all()
        .iter()
        .flat_map(|source| FOREIGN.iter().map(move |word| (source, word)))
        .filter(|(source, word)| source.text.contains(**word))
        .map(|(source, word)| format!("{} names `{word}`", source.path))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_file_holds_a_private_key() {
    let begins = concat!("BEGIN ", "PRIVATE KEY");
    let with_key = |text: &str| text.lines().any(|line| line.trim() == format!("-----{begins}-----"));
    let found: Vec<String> = all().into_iter().filter(|it| with_key(&it.text)).map(|it| it.path).collect();
    assert_eq!(found, [""; 0], "tests make their keys");
}

#[test]
fn every_dependency_is_named_once_in_the_workspace() {
    let workspace: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let named = workspace["workspace"]["dependencies"].as_table().unwrap();
    let manifests: Vec<_> = all().into_iter().filter(|it| it.path.ends_with("/Cargo.toml")).collect();
    for manifest in &manifests {
        let table: toml::Table = toml::from_str(&manifest.text).unwrap();
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, wanted) in table.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                let inherits = wanted.get("workspace").is_some() && named.contains_key(name);
                assert!(inherits, "`{}` names a version of `{name}` of its own", manifest.path);
            }
        }
    }
    assert!(top().join("Cargo.lock").exists());
}
