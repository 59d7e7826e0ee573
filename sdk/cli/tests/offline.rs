//! The program as a user runs it, without a broker: what it prints where, and how it exits.

use std::io;
use std::path::Path;
use std::process::{Command, Output};

/// Runs `daypass` in an environment that names no broker and no profile.
fn daypass(args: &[&str]) -> io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_daypass")).args(args).env_clear().output()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn each_way_to_fail_has_its_exit_code_and_says_nothing_on_standard_output() {
    let silent = "https://127.0.0.1:9";
    let directory = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(path("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let cases: &[(&[&str], i32, &str)] = &[
        (&["get"], 2, "required"),
        (&["get", "t"], 2, "no broker: give `--broker`"),
        (&["get", "t", "--broker", "https://b"], 2, "no CA: give `--ca`"),
        (&["get", "t", "--broker", silent, "--ca", "/nowhere"], 2, "cannot read `ca` `/nowhere`"),
        (&["get", "t", "--broker", silent, "--ca", &cert], 2, "no proof: expected `id_token_file`"),
        (
            &["get", "t", "--broker", silent, "--ca", &cert, "--cert", &cert, "--key", &key, "--web", silent],
            3,
            "no answer from `https://127.0.0.1:9",
        ),
        (&["--config", "/nowhere", "status"], 2, "cannot read the profiles `/nowhere`"),
        (&["check", "/nowhere"], 2, "cannot read the folder `/nowhere`"),
        (&["error", "NOPE"], 2, "`NOPE` is no reason"),
        (&["inspect", &key], 2, "this is no credential"),
    ];
    for (args, code, message) in cases {
        let output = daypass(args).unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {said}");
        assert!(said.contains(message), "{args:?}: {said}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
    }
}

#[test]
fn the_sample_organisation_is_checked_without_a_broker() {
    let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
    let output = daypass(&["check", &policies.display().to_string()]).unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("sha256:") && said.contains("identities"), "{said}");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tasks.toml"), "[task.x]\npurpos = 1\n").unwrap();
    let output = daypass(&["check", &directory.path().display().to_string()]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("tasks.toml:2: error[unknown-key]"));
    assert!(text(&output.stderr).contains("the bundle is refused"));
}

#[test]
fn a_token_is_decoded_without_a_broker_and_what_was_not_checked_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let part = |json: &str| data_encoding::BASE64URL_NOPAD.encode(json.as_bytes());
    let token = format!("{}.{}.c2ln", part(r#"{"alg":"ES256"}"#), part(r#"{"sub":"x","exp":1795316400}"#));
    std::fs::write(&file, token).unwrap();
    let output = daypass(&["inspect", &file.display().to_string()]).unwrap();
    let said = text(&output.stdout);
    assert!(said.contains("exp          2026-11-22T03:00:00Z"), "{said}");
    assert!(said.contains("not checked  signature, entry, inclusion: no broker to ask"), "{said}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_reason_is_explained_for_people_and_for_programs() {
    let output = daypass(&["error", "proof_replayed"]).unwrap();
    assert!(text(&output.stdout).starts_with("PROOF_REPLAYED\n\nWhat was wrong: "));
    let output = daypass(&["--format", "json", "error", "PROOF_REPLAYED"]).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["reason"], "PROOF_REPLAYED");
}

/// The commands that `daypass` lists when it is asked for help.
fn commands() -> Option<Vec<String>> {
    let help = text(&daypass(&["--help"]).ok()?.stdout);
    let (_, listed) = help.split_once("Commands:\n")?;
    let (listed, _) = listed.split_once("\n\n")?;
    let names: Vec<_> =
        listed.lines().filter_map(|line| line.split_whitespace().next()).map(String::from).collect();
    assert!(names.len() > 8 && names.contains(&"get".to_owned()), "{names:?}");
    Some(names)
}

#[test]
fn a_shell_completes_every_command_by_the_script_that_is_printed_for_it() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = daypass(&["completions", shell]).unwrap();
        let script = text(&output.stdout);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{shell}");
        for command in commands().unwrap() {
            assert!(script.contains(&command), "{shell} does not complete `{command}`");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("daypass.bash");
    std::fs::write(&file, daypass(&["completions", "bash"]).unwrap().stdout).unwrap();
    let line = "source \"$0\"; COMP_WORDS=(daypass rota); COMP_CWORD=1; _daypass daypass rota daypass; echo \"${COMPREPLY[@]}\"";
    let completed = Command::new("bash").args(["-c", line]).arg(&file).output().unwrap();
    assert_eq!(text(&completed.stdout).trim(), "rotate", "{}", text(&completed.stderr));
}

#[test]
fn every_command_has_a_manual_page() {
    let whole = text(&daypass(&["man"]).unwrap().stdout);
    assert!(whole.contains(".TH daypass 1") && whole.contains("Exit codes"), "{whole}");
    for command in commands().unwrap() {
        let output = daypass(&["man", &command]).unwrap();
        let page = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", text(&output.stderr));
        assert!(page.contains(&format!(".TH daypass-{command} 1")), "{page}");
        assert!(whole.contains(&format!("daypass\\-{command}(1)")), "{command}: {whole}");
    }
    let verify = text(&daypass(&["man", "log", "verify"]).unwrap().stdout);
    assert!(verify.contains("\\-\\-checkpoint"), "{verify}");
    let output = daypass(&["man", "log", "verfy"]).unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("`verfy` is no command: expected one of `verify`, `checkpoint`"), "{said}");
}
