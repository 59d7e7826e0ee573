//! The examples of the SDK as a user runs them: a service and its client, beside the development broker.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daypass_tests::harness::program;

/// A program that is ended with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// An example of the SDK: built beside the programs.
fn example(name: &str) -> PathBuf {
    let path = program("daypass-broker").with_file_name("examples").join(name);
    let how = "cargo build -p daypass-sdk --features axum --examples";
    assert!(path.exists(), "`{}` is not built: run `{how}`, or tests/run", path.display());
    path
}

fn started(program: impl AsRef<Path>, arguments: &[&str], variables: &[(&str, String)]) -> Running {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).envs(variables.iter().map(|(name, value)| (name, value)));
    Running(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap())
}

/// The value of a key of the profile `nightly` that the development broker writes once it serves.
fn variables(state: &Path) -> Vec<(&'static str, String)> {
    let began = Instant::now();
    let profile = loop {
        let text = std::fs::read_to_string(state.join("daypass.toml")).unwrap_or_default();
        if let Ok(toml::Value::Table(mut table)) = text.parse::<toml::Table>().map(toml::Value::from)
            && let Some(profile) = table.remove("profile").and_then(|it| it.get("nightly").cloned())
        {
            break profile;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "the development broker does not serve within 60 s"
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    let names = [
        ("DAYPASS_BROKER", "broker"),
        ("DAYPASS_WEB", "web"),
        ("DAYPASS_CA", "ca"),
        ("DAYPASS_CERT", "cert"),
        ("DAYPASS_KEY", "key"),
        ("DAYPASS_LOG_KEY", "log_key"),
    ];
    names.map(|(variable, key)| (variable, profile[key].as_str().unwrap().to_owned())).into()
}

#[test]
fn the_example_service_takes_what_the_example_client_may_write_and_nothing_else() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().to_str().unwrap();
    let _broker = started(program("daypass-broker"), &["dev", "--state", path], &[]);
    let variables = variables(state.path());
    let mut ledger = started(example("ledger"), &[path], &variables);
    let mut url = String::new();
    BufReader::new(ledger.0.stdout.take().unwrap()).read_line(&mut url).unwrap();
    assert!(url.starts_with("https://127.0.0.1:"), "{url:?}");
    let written = Command::new(example("nightly"))
        .arg(url.trim())
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let (text, told) = (String::from_utf8_lossy(&written.stdout), String::from_utf8_lossy(&written.stderr));
    let lines: Vec<_> = text.lines().collect();
    let by = "written for spiffe://example.org/prod/billing/nightly by post-invoices";
    assert_eq!(
        lines,
        [
            format!("eu/2027-01: 200 OK {by}"),
            format!("us/2027-01: 200 OK {by}"),
            "asia/2027-01: 403 Forbidden ".to_owned(),
        ],
        "{told}"
    );
}
