//! What a broker and its database must prove to each other before anything is said.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use daypass_broker::store::StoreAt;
use daypass_broker::store::postgres::{Password, PostgresAt};
use daypass_tests::harness::postgres::{Database, OWNER, Postgres, SERVICE};
use daypass_tests::harness::{Deployment, issue, program, run, task};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;

/// A CA of the test's own.
struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key (PEM) for these hosts, and of this common name.
    fn issue(&self, hosts: &[&str], name: &str, usage: ExtendedKeyUsagePurpose) -> [String; 2] {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        [params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem()]
    }
}

/// A server that speaks to brokers over TLS alone, and only where they show a certificate.
struct Guarded {
    server: Postgres,
    servers: Ca,
    clients: Ca,
    folder: TempDir,
}

const HBA: &str = "hostssl all daypass all cert\nhost all daypass all reject\n\
    host all all 127.0.0.1/32 trust\nlocal all all trust\n";

impl Guarded {
    fn start() -> Self {
        let (servers, clients) = (Ca::new("databases"), Ca::new("clients of databases"));
        let server = Postgres::start();
        let [certificate, key] = servers.issue(&["localhost"], "db", ExtendedKeyUsagePurpose::ServerAuth);
        server.write("server.crt", &certificate);
        server.write("server.key", &key);
        server.write("clients.crt", &clients.0.pem());
        server.write("pg_hba.conf", HBA);
        server.configure("ssl = on\nssl_ca_file = 'clients.crt'");
        server.reload();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("roots.pem"), servers.0.pem()).unwrap();
        let made = Self { server, servers, clients, folder };
        made.shows(&made.clients.issue(&[], SERVICE, ExtendedKeyUsagePurpose::ClientAuth));
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the broker shows from now on.
    fn shows(&self, [certificate, key]: &[String; 2]) {
        let path = self.path("broker.key");
        std::fs::write(&path, key).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(self.path("broker.crt"), certificate).unwrap();
    }

    /// The URL of a broker that does everything right.
    fn url(&self, database: &Database<'_>) -> String {
        let (certificate, key) = (self.path("broker.crt"), self.path("broker.key"));
        format!(
            "postgresql://{SERVICE}@localhost:{}/{}?sslmode=verify-full&sslcert={}&sslkey={}",
            self.server.port,
            database.name,
            certificate.display(),
            key.display()
        )
    }

    fn at(&self, database: &Database<'_>, url: &str, roots: &Path) -> StoreAt {
        let owner = PostgresAt::new(&database.url(OWNER), Password::None, None, false).unwrap();
        let at = PostgresAt::new(url, Password::None, Some(roots), false).unwrap();
        StoreAt::Postgres(Arc::new(at.owned_by(owner)))
    }
}

/// Why a store is not read.
fn why_not(at: &StoreAt) -> String {
    at.reader().err().expect("it must be refused").to_string()
}

#[tokio::test]
async fn a_broker_and_its_database_prove_who_they_are_and_all_is_said_over_tls() {
    let guarded = Guarded::start();
    let database = guarded.server.database("daypass");
    let url = guarded.url(&database);
    let at = guarded.at(&database, &url, &guarded.path("roots.pem"));
    let mut deployment = Deployment::stopped_in(at).await;
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let sessions = "SELECT count(*), count(*) FILTER (WHERE ssl AND client_dn = '/CN=daypass')
        FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'daypass'";
    let sessions = guarded.server.query("postgres", sessions);
    assert!(sessions[0][0] != "0" && sessions[0][0] == sessions[0][1], "{sessions:?}");
    deployment.stop().await;

    // The program, by its configuration.
    let text = std::fs::read_to_string(deployment.config_file()).unwrap();
    let from = text.lines().find(|line| line.starts_with("url = ")).unwrap();
    let to = format!("url = {url:?}\nca_file = {:?}", guarded.path("roots.pem"));
    let config = deployment.folder().join("tls.toml");
    std::fs::write(&config, text.replace(from, &to)).unwrap();
    let verified = run(program("daypass-broker"), ["verify", "--config", config.to_str().unwrap()]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[test]
fn a_database_or_a_broker_that_is_not_who_it_should_be_is_refused_and_told_why() {
    let guarded = Guarded::start();
    let database = guarded.server.database("daypass");
    let (url, roots) = (guarded.url(&database), guarded.path("roots.pem"));
    drop(guarded.at(&database, &url, &roots).claim().unwrap().expect("it is empty"));
    let right = || guarded.at(&database, &url, &roots).reader().map(drop);
    right().unwrap();

    let strangers = guarded.path("strangers.pem");
    std::fs::write(&strangers, Ca::new("strangers").0.pem()).unwrap();
    let (plain, _) = url.split_once('?').unwrap();
    let (alone, _) = url.split_once("&sslcert=").unwrap();
    let by_address = url.replace("localhost", "127.0.0.1");
    for (what, url, roots, expected) in [
        ("a database of a stranger", url.as_str(), &strangers, "leads to no root that is trusted"),
        ("a database of another name", &by_address, &roots, "is for another name"),
        ("a broker that shows nothing", alone, &roots, "certificate"),
        ("a broker in the clear", plain, &roots, "pg_hba.conf rejects connection"),
    ] {
        let why = why_not(&guarded.at(&database, url, roots));
        assert!(why.contains(expected), "{what}: {why}");
    }

    // One broker's place, which reads its certificate again at each connection.
    let at = guarded.at(&database, &url, &roots);
    let client = ExtendedKeyUsagePurpose::ClientAuth;
    let by_strangers = Ca::new("strangers").issue(&[], SERVICE, client.clone());
    for (what, shown, expected) in [
        ("a certificate by a stranger", by_strangers, "UnknownCA"),
        (
            "another's certificate",
            guarded.clients.issue(&[], "another", client.clone()),
            "authentication failed",
        ),
    ] {
        guarded.shows(&shown);
        let why = why_not(&at);
        assert!(why.contains(expected), "{what}: {why}");
    }
    guarded.shows(&guarded.clients.issue(&[], SERVICE, client));
    at.reader().expect("a renewed one is shown without a restart");

    let [certificate, key] =
        guarded.servers.issue(&["elsewhere.example.org"], "db", ExtendedKeyUsagePurpose::ServerAuth);
    guarded.server.write("server.crt", &certificate);
    guarded.server.write("server.key", &key);
    guarded.server.reload();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(why_not(&at).contains("another name"));
    guarded.server.configure("ssl = off");
    guarded.server.reload();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let why = why_not(&at);
    assert!(why.contains("server does not support TLS"), "{why}");
}
