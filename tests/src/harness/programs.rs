//! The programs as a user runs them: those of this workspace, and stock ones.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// A program of this workspace: built beside the tests by `cargo build --workspace --bins`.
pub fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let broken = cfg!(feature = "sabotage") && ["daypass-broker", "daypass-agent"].contains(&name);
    let file = if broken { format!("{name}-sabotaged") } else { name.to_owned() };
    let path = tests.parent().and_then(|deps| deps.parent()).unwrap().join(&file);
    assert!(
        path.exists(),
        "`{}` is not built: run `cargo build --workspace --bins`, or tests/run",
        path.display()
    );
    path
}

/// Whether the long versions of tests are wanted: `tests/run --nightly`, or `DAYPASS_NIGHTLY=1`.
pub fn nightly() -> bool {
    std::env::var_os("DAYPASS_NIGHTLY").is_some_and(|it| it != "0")
}

/// Says that a part of a test was left out, past the capture of what tests print, and once more at the end of tests/run:
/// nobody must take it for done.
pub fn left_out(what: &str, why: &str) {
    let text = format!("{what}: {}\n", why.trim().replace('\n', " "));
    drop(std::io::stderr().lock().write_all(format!("\n*** LEFT OUT: {text}").as_bytes()));
    let tests = std::env::current_exe().unwrap();
    let list = tests.ancestors().nth(3).unwrap().join("left-out");
    let mut list = std::fs::File::options().create(true).append(true).open(list).unwrap();
    list.write_all(text.as_bytes()).unwrap();
}

/// The Python interpreter that has what `tests/stock/requirements.txt` names.
pub fn python() -> PathBuf {
    let path = std::env::var_os("DAYPASS_TEST_PYTHON").map(PathBuf::from);
    path.expect("`DAYPASS_TEST_PYTHON` names no interpreter: run tests/run, which makes one with the packages of tests/stock/requirements.txt")
}

/// The scripts for Node.js in `folder`, beside the packages that `tests/stock/node/package-lock.json` names.
pub fn node(folder: &Path) -> PathBuf {
    let built = std::env::current_exe().unwrap();
    let beside = || built.ancestors().nth(3).unwrap().join("test-node");
    let packages =
        std::env::var_os("DAYPASS_TEST_NODE").map_or_else(beside, PathBuf::from).join("node_modules");
    assert!(packages.exists(), "`{}` is missing: run tests/run, which installs it", packages.display());
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("stock/node"), folder.join("node"));
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    std::os::unix::fs::symlink(packages, to.join("node_modules")).unwrap();
    to
}

/// Runs a program to its end.
pub async fn run<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
) -> Output {
    run_with(program, arguments, b"").await
}

/// The same with this on its standard input.
pub async fn run_with<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = A>,
    input: &[u8],
) -> Output {
    let name = program.as_ref().display().to_string();
    let mut child = Command::new(program.as_ref())
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("`{name}` could not be run: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that does not read its input may be gone before it is written.
    let writing = tokio::task::spawn_blocking(move || drop(stdin.write_all(&input)));
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().unwrap();
    writing.await.unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Output { code: ended.status.code(), stdout: text(&ended.stdout), stderr: text(&ended.stderr) }
}
