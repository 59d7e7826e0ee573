//! Secrets sent along every path of the programs, broker and command line, each looked for afterwards wherever something
//! is printed, logged, counted or kept: proofs, tokens and keys belong to who holds them, and to files of mode 0600.

mod agents;
mod password;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use daypass_broker::dev::caller::client_config;
use daypass_broker::dev::organisation::sample;
use daypass_tests::harness::{
    CI, Deployment, NIGHTLY, OPERATOR, Output, SECURITY, STAFF, eventually, free_port, nightly, program, run,
};
use memchr::memmem;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A word in claims that nothing looks at, in headers that nobody reads, and in forms that are refused.
const WORD: &str = "canary-4e1f7c09b2";

/// A secret, in every spelling in which it could be found.
struct Secret {
    what: String,
    spellings: Vec<Vec<u8>>,
}

/// Every secret that was used, and everything that was said.
struct Watch {
    deployment: Deployment,
    broker: Child,
    api: u16,
    ops: u16,
    log: PathBuf,
    secrets: Vec<Secret>,
    said: Vec<(String, Vec<u8>)>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.broker.kill());
        drop(self.broker.wait());
    }
}

#[tokio::test]
async fn no_secret_is_printed_logged_counted_or_kept_where_others_can_read_it() {
    let mut watch = Watch::start().await;
    watch.keep_secret("a word", WORD.as_bytes());
    let kek = fs::read(&watch.deployment.settings.kek).unwrap();
    watch.keep_secret("the key-encryption key", kek.trim_ascii());
    watch.good_paths().await;
    watch.refused_paths().await;
    watch.operators_paths().await;
    watch.strangers_on_the_web().await;
    watch.agents_paths().await;
    watch.gather().await;
    watch.broker.kill().unwrap();
    watch.broker.wait().unwrap();
    let broker = fs::read(&watch.log).unwrap();
    assert!(contains(&broker, b"a proof was refused"), "its log says nothing: nothing was watched");
    watch.said.push(("the broker".into(), broker));
    watch.find();
}

impl Watch {
    /// The sample organisation, served by the program at its chattiest.
    async fn start() -> Self {
        let deployment = Deployment::stopped(sample()).await;
        let (api, web, ops) = (free_port(), deployment.settings.web.address.port(), free_port());
        let config = deployment.config_file();
        let mut text = fs::read_to_string(&config).unwrap();
        for (section, port) in [("ops", ops), ("api", api), ("web", web)] {
            let any = format!("[{section}]\nlisten = \"127.0.0.1:0\"");
            assert!(text.contains(&any), "{text}");
            text = text.replace(&any, &format!("[{section}]\nlisten = \"127.0.0.1:{port}\""));
        }
        let level = if nightly() { CHATTIEST } else { "trace" };
        fs::write(&config, format!("{text}[output]\nlevel = \"{level}\"\n")).unwrap();
        let log = deployment.folder().join("broker.log");
        let output = File::create(&log).unwrap();
        let mut command = Command::new(program("daypass-broker"));
        command.args(["serve", "--config"]).arg(&config).stdin(Stdio::null());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        let broker = command.spawn().unwrap();
        let watch = Self { deployment, broker, api, ops, log, secrets: Vec::new(), said: Vec::new() };
        eventually("the broker is ready", || async { watch.ops("/readyz").await.is_some() }).await;
        for (issuer, who, arguments) in
            [(CI, NIGHTLY, &["explain", "post-invoices"][..]), (STAFF, OPERATOR, &["log", "checkpoint"])]
        {
            let token = watch.deployment.organisation.token(issuer, who).unwrap();
            let file = watch.write("first", &token).display().to_string();
            let line = watch.line(&["--id-token-file", &file], arguments);
            let answers = || async { run(program("daypass"), &line).await.code == Some(0) };
            eventually("the broker knows the issuer's keys", answers).await;
        }
        watch
    }

    fn line(&self, proof: &[&str], arguments: &[&str]) -> Vec<String> {
        let (api, web) = (self.api, self.deployment.settings.issuer.as_str().to_owned());
        let mut line = vec!["--broker".to_owned(), format!("https://127.0.0.1:{api}"), "--web".into(), web];
        let profile = self.write("profile.toml", &format!("log_key = \"{}\"\n", self.deployment.log_key));
        line.extend(["--ca".to_owned(), self.deployment.listener_ca.display().to_string()]);
        line.extend(["--config".to_owned(), profile.display().to_string()]);
        line.extend(proof.iter().chain(arguments).map(|it| (*it).to_owned()));
        line
    }

    /// What the listener for operators answers, where that is good.
    async fn ops(&self, path: &str) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ops)).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n\r\n", self.ops);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        answer.starts_with(b"HTTP/1.1 200 ").then_some(answer)
    }

    fn keep_secret(&mut self, what: impl Into<String>, bytes: &[u8]) {
        let mut spellings =
            vec![bytes.to_vec(), STANDARD.encode(bytes).into(), URL_SAFE.encode(bytes).into()];
        spellings.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into());
        // Within other text base64 begins at any of three bytes; its inner part is the same.
        for shift in 0..3 {
            let shifted = URL_SAFE_NO_PAD.encode([vec![0; shift], bytes.to_vec()].concat());
            spellings.push(shifted.as_bytes()[shift.min(1) * 4..shifted.len() - 4].to_vec());
        }
        spellings.retain(|spelling| spelling.len() >= 12);
        self.secrets.push(Secret { what: what.into(), spellings });
    }

    /// A token is known by its signature: the rest of it says what entries say too.
    fn keep_token_secret(&mut self, what: &str, token: &str) {
        let (_, signature) = token.trim().rsplit_once('.').unwrap();
        let spellings = vec![signature.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(signature).unwrap()];
        self.secrets.push(Secret { what: what.into(), spellings });
    }

    fn keep_key_secret(&mut self, what: &str, key: &str) {
        let der = pem::parse(key).unwrap().into_contents();
        let middle = key.lines().nth(1).unwrap().as_bytes().to_vec();
        // The private value itself: in PKCS#8 of P-256 at this place.
        let spellings = vec![middle, der[36..68].to_vec(), STANDARD.encode(&der).into()];
        self.secrets.push(Secret { what: what.into(), spellings });
    }

    fn path(&self, name: &str) -> PathBuf {
        self.deployment.folder().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Runs `daypass` with this proof; what it printed is watched, less what `theirs` says is meant for the caller.
    async fn daypass(&mut self, proof: &[&str], arguments: &[&str], theirs: bool) -> Output {
        let line = self.line(proof, arguments);
        let output = run(program("daypass"), &line).await;
        let called = format!("daypass {}", arguments.join(" "));
        self.said.push((format!("{called}, standard error"), output.stderr.clone().into()));
        if !theirs {
            self.said.push((format!("{called}, standard output"), output.stdout.clone().into()));
        }
        output
    }

    /// A fresh proof of the nightly job, with a word that nothing looks at.
    fn proof(&mut self, name: &str) -> String {
        let token = self.deployment.forge(CI, NIGHTLY).with(|_, claims| {
            claims.insert("note".into(), json!(WORD));
            claims.insert("/note".into(), json!({ "deep": WORD }));
        });
        self.keep_token_secret(&format!("the proof `{name}`"), &token);
        self.write(name, &token).display().to_string()
    }

    async fn good_paths(&mut self) {
        let certificate = self.deployment.workload(NIGHTLY);
        self.keep_key_secret("the caller's key", &certificate.key_pem());
        let cert = self.write("caller.pem", &certificate.chain_pem()).display().to_string();
        let key = self.write("caller.key", &certificate.key_pem()).display().to_string();
        let held = ["--cert", cert.as_str(), "--key", key.as_str()];
        let got = self.daypass(&held, &["get", "post-invoices", "--run", "night 7"], true).await;
        assert_eq!(got.code, Some(0), "{}", got.stderr);
        self.keep_token_secret("a bound token", &got.stdout);
        let token = self.write("token", &got.stdout).display().to_string();
        for format in ["table", "json"] {
            let shown = self.daypass(&held, &["--format", format, "inspect", &token], false).await;
            assert_eq!(shown.code, Some(0), "{}", shown.stderr);
            self.daypass(&held, &["--format", format, "explain", "post-invoices"], false).await;
            self.daypass(&held, &["--format", format, "status"], false).await;
        }
        let bearer = self.proof("bearer-proof");
        let by_token = ["--id-token-file", bearer.as_str()];
        let got =
            self.daypass(&by_token, &["get", "read-invoices", "--bearer", "--audience", LEDGER], true).await;
        assert_eq!(got.code, Some(0), "{}", got.stderr);
        self.keep_token_secret("a bearer token", &got.stdout);
        let out = self.path("certificate").display().to_string();
        let got = self.daypass(&held, &["get", "ledger-db", "--out", &out], false).await;
        assert_eq!(got.code, Some(0), "{}", got.stderr);
        let made = fs::read_to_string(self.path("certificate/tls.key")).unwrap();
        self.keep_key_secret("the key of a certificate", &made);
    }

    async fn refused_paths(&mut self) {
        let spent = self.path("bearer-proof").display().to_string();
        let refusals: [(&str, String); 4] = [
            ("a proof again", spent),
            ("a proof of nobody's key", {
                let token = self.deployment.forge(CI, NIGHTLY).signed_by(&[7; 64]);
                self.keep_token_secret("a forged proof", &token);
                self.write("forged", &token).display().to_string()
            }),
            (
                "a word for a proof",
                self.write("word", &format!("{WORD}.{WORD}.{WORD}")).display().to_string(),
            ),
            ("a key for a proof", self.path("caller.key").display().to_string()),
        ];
        for (what, file) in refusals {
            let proof = ["--id-token-file", file.as_str()];
            let refused = self.daypass(&proof, &["get", "read-invoices", "--bearer"], false).await;
            assert_ne!(refused.code, Some(0), "{what}");
        }
        let fresh = self.proof("wrong-task");
        let refused = self.daypass(&["--id-token-file", &fresh], &["get", "deploy-web"], false).await;
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        let key = self.path("caller.key").display().to_string();
        let shown = self.daypass(&["--id-token-file", &fresh], &["inspect", &key], false).await;
        assert_eq!(shown.code, Some(2), "a key is no credential: {}", shown.stderr);
        let swapped = ["--cert", key.as_str(), "--key", key.as_str()];
        assert_ne!(self.daypass(&swapped, &["status"], false).await.code, Some(0));
    }

    async fn operators_paths(&mut self) {
        for (operator, arguments) in [
            (OPERATOR, &["--format", "ndjson", "log"][..]),
            (OPERATOR, &["log", "verify"]),
            (OPERATOR, &["log", "checkpoint"]),
            (OPERATOR, &["log", "--kind", "credential.issued"]),
            (SECURITY, &["rotate", "token", "--dry-run"]),
            (SECURITY, &["rotate", "token"]),
        ] {
            let token = self.deployment.organisation.token(STAFF, operator).unwrap();
            self.keep_token_secret("an operator's proof", &token);
            let file = self.write("operator", &token).display().to_string();
            let done = self.daypass(&["--id-token-file", &file], arguments, false).await;
            assert_eq!(done.code, Some(0), "{arguments:?}: {}", done.stderr);
        }
        let entries =
            &self.said.iter().find(|(what, _)| what.contains("ndjson log, standard output")).unwrap().1;
        assert!(
            contains(entries, b"credential.issued"),
            "the log shows no credential: nothing was looked through"
        );
    }

    /// Whoever comes to the web listener with secrets where they do not belong.
    async fn strangers_on_the_web(&mut self) {
        let tls = client_config(&self.deployment.listener_ca, None).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap();
        let web = self.deployment.settings.issuer.as_str().to_owned();
        let proof = fs::read_to_string(self.proof("stray")).unwrap();
        for path in ["/token", "/introspect", "/revoke", "/jwks", &format!("/jwks?access_token={WORD}")] {
            let form = format!(
                "{EXCHANGE}&subject_token={proof}&token={proof}&scope=task:nothing&client_secret={WORD}"
            );
            let request = client.post(format!("{web}{path}")).bearer_auth(&proof).header("x-secret", WORD);
            let request = request.header("content-type", FORM).body(form);
            let answer = request.send().await.unwrap();
            let said = format!("{:?} {}", answer.headers().clone(), answer.text().await.unwrap());
            self.said.push((format!("POST {path}"), said.into()));
            let request = client.get(format!("{web}{path}")).basic_auth("nightly", Some(WORD));
            let answer = request.send().await.unwrap();
            let said = format!("{:?} {}", answer.headers().clone(), answer.text().await.unwrap());
            self.said.push((format!("GET {path}"), said.into()));
        }
    }

    async fn gather(&mut self) {
        let metrics = self.ops("/metrics").await.unwrap();
        assert!(contains(&metrics, b"daypass_issue"), "nothing was counted");
        self.said.push(("metrics".into(), metrics));
    }

    /// Holds all that was said, and every file that others may read or that a broker keeps, against every secret.
    fn find(&self) {
        let mut found = Vec::new();
        let mut look = |place: &str, bytes: &[u8]| {
            for Secret { what, spellings } in &self.secrets {
                if spellings.iter().any(|spelling| contains(bytes, spelling)) {
                    found.push(format!("{what} in {place}"));
                }
            }
        };
        for (place, bytes) in &self.said {
            look(place, bytes);
        }
        let store = self.deployment.settings.store.file().unwrap();
        let kept = |path: &Path| path.display().to_string().starts_with(&store.display().to_string());
        let mut looked = 0;
        for path in files(self.deployment.folder()) {
            let private = fs::metadata(&path).unwrap().permissions().mode() & 0o077 == 0;
            // What is sealed is private, and tells nothing besides.
            if !private || kept(&path) || path.starts_with(self.path("sealed")) {
                look(&path.display().to_string(), &fs::read(&path).unwrap());
                looked += 1;
            }
        }
        assert!(looked > 3, "no file was looked through");
        assert_eq!(found, Vec::<String>::new());
        let proofs = fs::read(self.path("bearer-proof")).unwrap();
        let known = |secret: &Secret| secret.spellings.iter().any(|spelling| contains(&proofs, spelling));
        assert!(self.secrets.iter().any(known), "what is looked for is not even in the file that holds it");
    }
}

/// As chatty as an operator can make it: by itself it keeps the libraries that see requests at `info`.
const CHATTIEST: &str =
    "trace,h2=trace,hyper=trace,hyper_util=trace,tonic=trace,tower=trace,rustls=trace,reqwest=trace";

const FORM: &str = "application/x-www-form-urlencoded";
const EXCHANGE: &str = "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
                        &subject_token_type=urn:ietf:params:oauth:token-type:id_token";

const LEDGER: &str = "https://ledger.example.org";

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match fs::symlink_metadata(&path).unwrap().file_type() {
            kind if kind.is_dir() => found.extend(files(&path)),
            kind if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    found
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    memmem::find(bytes, wanted).is_some()
}
