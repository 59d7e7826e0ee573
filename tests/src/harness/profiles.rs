//! What users of a deployment have in their files: the SDK's configuration, profiles of `daypass`, the broker's own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use daypass_broker::serve::Settings;

use super::{Deployment, NIGHTLY, OPERATOR, STAFF, TRUST_DOMAIN};

impl Deployment {
    /// The SDK's client with the nightly run's certificate.
    pub fn sdk(&self) -> daypass_sdk::Client {
        daypass_sdk::Client::new(self.sdk_config()).unwrap()
    }

    /// The same, remembering the log in this deployment's folder.
    pub fn sdk_with_state(&self) -> daypass_sdk::Client {
        let state = Some(self.folder.path().join("sdk"));
        daypass_sdk::Client::new(daypass_sdk::Config { state, ..self.sdk_config() }).unwrap()
    }

    /// The same by this deployment's clock, with its calls going to `port` of loopback.
    pub fn sdk_through(&self, port: u16) -> daypass_sdk::Client {
        let broker = format!("https://127.0.0.1:{port}").parse().unwrap();
        let config = daypass_sdk::Config { broker, ..self.sdk_config() };
        daypass_sdk::Client::with_clock(config, std::sync::Arc::clone(&self.clock) as _).unwrap()
    }

    /// What the SDK's client with the nightly run's certificate is made from.
    pub fn sdk_config(&self) -> daypass_sdk::Config {
        let certificate = self.workload(NIGHTLY);
        daypass_sdk::Config {
            broker: format!("https://127.0.0.1:{}", self.broker().api.port()).parse().unwrap(),
            web: Some(self.settings.issuer.as_str().parse().unwrap()),
            ca: std::fs::read(&self.listener_ca).unwrap(),
            certificate: Some(daypass_sdk::ClientCertificate::Pem {
                chain: certificate.chain_pem().into_bytes(),
                key: certificate.key_pem().into(),
            }),
            id_token: None,
            log_key: Some(self.log_key.clone()),
            state: None,
        }
    }

    /// A profile of the program `daypass` with the nightly run's certificate.
    pub fn services_profile(&self) -> PathBuf {
        let certificate = self.workload(NIGHTLY);
        let (cert, key) = (self.folder.path().join("nightly.pem"), self.folder.path().join("nightly.key"));
        std::fs::write(&cert, certificate.chain_pem()).unwrap();
        std::fs::write(&key, certificate.key_pem()).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.profile("service.toml", &format!("cert = {cert:?}\nkey = {key:?}\n"))
    }

    /// A profile of the program `daypass` with an operator's token.
    pub fn operators_profile(&self) -> PathBuf {
        self.profile_of(OPERATOR)
    }

    /// The same of one operator by name.
    pub fn profile_of(&self, operator: &str) -> PathBuf {
        let token = self.folder.path().join(format!("{operator}.token"));
        std::fs::write(&token, self.organisation.token(STAFF, operator).unwrap()).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.profile(&format!("{operator}.toml"), &format!("id_token_file = {token:?}\n"))
    }

    /// The configuration of this deployment as the broker's program reads it.
    pub fn config_file(&self) -> PathBuf {
        let Settings { issuer, store, anchor, kek, api, .. } = &self.settings;
        let (certificate, key) = (&api.certificate, &api.key);
        let store = match store.file() {
            Some(file) => format!("path = {file:?}"),
            None => format!("url = \"{store}\""),
        };
        let sealed = match self.settings.store.sealed() {
            Some(folder) => format!("[log]\nseal_dir = {folder:?}\n"),
            None => String::new(),
        };
        let listener = |name: &str| {
            format!("[{name}]\nlisten = \"127.0.0.1:0\"\ncertificate = {certificate:?}\nkey = {key:?}\n")
        };
        let text = format!(
            "[broker]\ntrust_domain = \"{TRUST_DOMAIN}\"\nissuer = \"{}\"\n[store]\n{store}\n\
             anchor = {anchor:?}\n[keys]\nkek_file = {kek:?}\n[ops]\nlisten = \"127.0.0.1:0\"\n{sealed}{}{}",
            issuer.as_str(),
            listener("api"),
            listener("web"),
        );
        let path = self.folder.path().join("broker.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn profile(&self, name: &str, proof: &str) -> PathBuf {
        let (api, web) = (self.broker().api.port(), self.settings.issuer.as_str());
        let (ca, key) = (&self.listener_ca, &self.log_key);
        let text = format!(
            "broker = \"https://127.0.0.1:{api}\"\nweb = \"{web}\"\nca = {ca:?}\nlog_key = \"{key}\"\n{proof}"
        );
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}
