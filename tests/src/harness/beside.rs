//! What stands beside a deployment: another broker on its log, and whoever verifies that log.

use std::net::SocketAddr;

use daypass_broker::serve::{self, Running, Settings};
use daypass_broker::store::Reader;
use daypass_core::proof::IssuerKeys;

use super::{CI, Deployment, eventually, free_port, program, run};

impl Deployment {
    /// What another broker on the same log is started with.
    #[must_use]
    pub fn second_settings(&self) -> Settings {
        let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut settings = Settings {
            broker: "b2".parse().unwrap(),
            anchor: self.folder().join("anchor2"),
            emergency: Some(self.folder().join("emergency2")),
            ..self.settings.clone()
        };
        (settings.api.address, settings.web.address, settings.ops) = (free(), free(), free());
        settings
    }

    /// Another broker on the same log, once it knows what is declared and who vouches for jobs.
    pub async fn second(&self) -> Running {
        let running = serve::start(self.second_settings()).await.unwrap();
        let issuer = CI.parse().unwrap();
        let is_ready = || async {
            let keys = running.trust.known().keys(&issuer);
            running.desk.log.state().bundle().is_some() && !matches!(keys, IssuerKeys::Unavailable)
        };
        eventually("the second broker is ready", is_ready).await;
        running
    }

    /// Both verifiers find nothing in the log as it is.
    pub async fn both_verifiers_agree(&self) {
        let read = |reader: &dyn Reader| Ok((reader.head()?, reader.rows(0, u32::MAX)?));
        let (head, rows) = self.broker().readers.run(read).await.unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = self.folder().join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let lines: Vec<u8> = rows.iter().flat_map(|row| [row.bytes.as_slice(), b"\n"].concat()).collect();
        let (entries, note) = (write("log.ndjson", &lines), write("log.note", &head.unwrap().checkpoint));
        let key = self.log_key.to_string();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verifier/verify.py");
        let theirs = run("python3", [script, &entries, &note, &key]).await;
        assert_eq!(theirs.code, Some(0), "{}{}", theirs.stdout, theirs.stderr);
        let arguments = ["log", "verify", &entries, "--checkpoint", &note, "--log-key", &key];
        let ours = run(program("daypass"), arguments).await;
        assert_eq!(ours.code, Some(0), "{}{}", ours.stdout, ours.stderr);
    }
}
