//! Who may depend on whom, and what nobody may depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use super::sources::read;

/// What `cargo metadata` says of this machine's platform: the packages of others need not be there.
pub(super) static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", &format!("{}-unknown-linux-gnu", std::env::consts::ARCH)])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
});

pub(super) fn packages() -> &'static [Value] {
    METADATA["packages"].as_array().unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

/// What is drawn is asked of the kernel each time: whoever copies a running machine copies what lies in its memory.
#[test]
fn nothing_of_ours_keeps_randomness_in_memory() {
    const KEEP: &[&str] = &["rand", "rand_core", "rand_chacha", "rand_pcg", "fastrand", "oorandom"];
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        let needed = package["dependencies"].as_array().unwrap();
        let needed = needed.iter().filter(|it| it["kind"].is_null()).map(|it| text(it, "name"));
        let found: Vec<&str> = needed.filter(|name| KEEP.contains(name)).collect();
        assert!(found.is_empty(), "{} draws from {found:?}", text(package, "name"));
    }
}

/// The crates of this workspace that each of them may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("daypass-proto", &[]),
    ("daypass-verify", &[]),
    ("daypass-evidence", &["daypass-verify"]),
    ("daypass-core", &["daypass-verify", "daypass-evidence"]),
    ("daypass-broker", &["daypass-verify", "daypass-evidence", "daypass-core", "daypass-proto"]),
    ("daypass-sdk", &["daypass-verify", "daypass-evidence", "daypass-proto"]),
    ("daypass-agent", &["daypass-verify", "daypass-evidence", "daypass-proto", "daypass-sdk"]),
    ("daypass-cli", &["daypass-verify", "daypass-evidence", "daypass-core", "daypass-proto", "daypass-sdk"]),
];

#[test]
fn a_crate_uses_only_the_crates_below_it() {
    let may_use: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    for package in packages().iter().filter(|package| package["source"].is_null()) {
        let name = text(package, "name");
        if name == "daypass-tests" {
            continue;
        }
        let allowed =
            may_use.get(name).unwrap_or_else(|| panic!("`{name}` is not in the list of who may use whom"));
        let used = package["dependencies"].as_array().unwrap().iter().filter(|it| it["source"].is_null());
        let wrong: Vec<_> = used.map(|it| text(it, "name")).filter(|it| !allowed.contains(it)).collect();
        assert!(wrong.is_empty(), "`{name}` must not use {wrong:?}: it may use {allowed:?}");
    }
}

/// What would bring time, threads, files or the network into the part that is pure.
const NOT_PURE: &[&str] = &[
    "async-std",
    "axum",
    "dashmap",
    "futures-executor",
    "h2",
    "hyper",
    "mio",
    "polling",
    "postgres",
    "prost",
    "reqwest",
    "rusqlite",
    "rustls",
    "smol",
    "socket2",
    "tokio",
    "tokio-postgres",
    "tonic",
    "tower",
    "ureq",
];

#[test]
fn what_decides_depends_on_no_runtime_network_store_or_protobuf() {
    let names = names();
    for pure in ["daypass-verify", "daypass-evidence", "daypass-core"] {
        let reached = reached(pure);
        let wrong: Vec<_> =
            reached.iter().map(|id| names[*id]).filter(|name| NOT_PURE.contains(name)).collect();
        assert!(wrong.is_empty(), "`{pure}` leads to {wrong:?}");
        assert!(reached.len() > 10, "`{pure}` leads to {} packages: the graph was not read", reached.len());
    }
}

/// What needs a C compiler with a build system of its own, or is known for timing leaks.
const NEVER: &[&str] = &[
    "aws-lc-rs",
    "aws-lc-sys",
    "aws-lc-fips-sys",
    "boring",
    "boring-sys",
    "cmake",
    "native-tls",
    "openssl",
    "openssl-sys",
    "openssl-src",
    "protobuf-src",
    "protoc",
    "protoc-bin-vendored",
    "protoc-rust",
    "rsa",
];

#[test]
fn no_crate_brings_another_crypto_library_or_needs_protoc_or_cmake() {
    let lock: toml::Table = toml::from_str(&read("Cargo.lock")).unwrap();
    let locked = lock["package"].as_array().unwrap();
    let found: Vec<_> =
        locked.iter().filter_map(|it| it["name"].as_str()).filter(|it| NEVER.contains(it)).collect();
    assert!(found.is_empty(), "{found:?} must not be in the graph, on no platform and not for tests");
}

fn names() -> BTreeMap<&'static str, &'static str> {
    packages().iter().map(|it| (text(it, "id"), text(it, "name"))).collect()
}

/// The ids of all packages that a program with `package` in it contains.
fn reached(package: &str) -> BTreeSet<&'static str> {
    let nodes = METADATA["resolve"]["nodes"].as_array().unwrap();
    let by_id: BTreeMap<_, _> = nodes.iter().map(|node| (text(node, "id"), node)).collect();
    let first = packages().iter().find(|it| text(it, "name") == package).unwrap();
    let mut reached = BTreeSet::new();
    let mut next = vec![text(first, "id")];
    while let Some(id) = next.pop() {
        if reached.insert(id) {
            let deps = by_id[id]["deps"].as_array().unwrap();
            let normal =
                |dep: &&Value| dep["dep_kinds"].as_array().unwrap().iter().any(|it| it["kind"].is_null());
            next.extend(deps.iter().filter(normal).map(|dep| text(dep, "pkg")));
        }
    }
    reached
}
