//! An nginx as docs/targets/nginx.md sets it up: a prefix and ports of its own, and an agent beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use daypass_tests::harness::{Agent, Deployment, NIGHTLY, eventually, free_port, program, run};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Who stands beside the server.
pub(super) const IDENTITY: &str = "prod/reports/gateway";
/// What its certificate is for.
const HOST: &str = "reports.example.org";

/// The program, which is not on everybody's path.
fn nginx() -> &'static str {
    if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" }
}

const CONFIGURATION: &str = r#"
daemon off;
pid PREFIX/nginx.pid;
error_log PREFIX/error.log;
events {}
http {
    access_log off;
    client_body_temp_path PREFIX/body;
    proxy_temp_path PREFIX/proxy;
    fastcgi_temp_path PREFIX/fastcgi;
    uwsgi_temp_path PREFIX/uwsgi;
    scgi_temp_path PREFIX/scgi;
    ssl_certificate PREFIX/own/tls.crt;
    ssl_certificate_key PREFIX/own/tls.key;
    ssl_session_cache off;
    ssl_session_tickets off;
    # Certificates of Daypass open this one.
    server {
        listen 127.0.0.1:TLS ssl;
        ssl_client_certificate PREFIX/own/ca.crt;
        ssl_verify_client on;
        ssl_verify_depth 2;
        ssl_crl PREFIX/daypass.crl;
        location /reports {
            if ($ssl_client_s_dn != "CN=billing-nightly") { return 403; }
            return 200 "the reports for $ssl_client_s_dn\n";
        }
    }
    # Tokens open these two; to the second, callers bring the certificate that theirs are bound to.
    server {
        listen 127.0.0.1:PLAIN;
        include PREFIX/tokens.conf;
    }
    server {
        listen 127.0.0.1:BOUND ssl;
        ssl_verify_client optional_no_ca;
        include PREFIX/tokens.conf;
    }
    # An application that knows neither.
    server {
        listen 127.0.0.1:APPLICATION;
        return 200 "$http_x_identity -$http_authorization\n";
    }
}
"#;

const TOKENS: &str = r#"
location /invoices {
    auth_request /daypass/read;
    include PREFIX/pass.conf;
}
location /post {
    auth_request /daypass/post;
    include PREFIX/pass.conf;
}
location /task {
    auth_request /daypass/task;
    include PREFIX/pass.conf;
}
location = /daypass/read {
    include PREFIX/ask.conf;
    proxy_pass http://unix:PREFIX/auth.sock:/verify?action=invoice:read;
}
location = /daypass/post {
    include PREFIX/ask.conf;
    proxy_pass http://unix:PREFIX/auth.sock:/verify?task=post-invoices&action=invoice:write;
}
location = /daypass/task {
    include PREFIX/ask.conf;
    proxy_pass http://unix:PREFIX/auth.sock:/verify?task=post-invoices;
}
"#;

const PASS: &str = r#"
auth_request_set $identity $upstream_http_daypass_subject;
proxy_set_header X-Identity $identity;
proxy_set_header Authorization "";
proxy_pass http://127.0.0.1:APPLICATION;
"#;

const ASK: &str = r#"
internal;
proxy_method GET;
proxy_pass_request_body off;
proxy_set_header Content-Length "";
proxy_set_header X-Client-Cert $ssl_client_escaped_cert;
"#;

/// All of it.
pub(super) struct Ground {
    pub(super) deployment: Deployment,
    pub(super) tls: u16,
    pub(super) plain: u16,
    pub(super) bound: u16,
    pub(super) version: String,
    agent: Option<Agent>,
    server: Child,
    prefix: PathBuf,
}

impl Drop for Ground {
    fn drop(&mut self) {
        // The workers go with their master only where it is asked.
        let pid = rustix::process::Pid::from_raw(self.server.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).ok();
        self.server.wait().ok();
    }
}

impl Ground {
    pub(super) async fn start() -> Self {
        let mut deployment = Deployment::stopped(organisation()).await;
        deployment.settings.api.address.set_port(free_port());
        deployment.resume().await.unwrap();
        let prefix = deployment.folder().join("nginx");
        fs::create_dir(&prefix).unwrap();
        let [tls, plain, bound, application] = std::array::from_fn(|_| free_port());
        let root = rustix::process::geteuid().is_root();
        for (name, text) in
            [("nginx.conf", CONFIGURATION), ("tokens.conf", TOKENS), ("pass.conf", PASS), ("ask.conf", ASK)]
        {
            let text = text.replace("PREFIX", prefix.to_str().unwrap());
            let text = text.replace("TLS", &tls.to_string()).replace("PLAIN", &plain.to_string());
            let text =
                text.replace("BOUND", &bound.to_string()).replace("APPLICATION", &application.to_string());
            // The folder of a test is its user's own.
            let user = if root && name == "nginx.conf" { "user root;\n" } else { "" };
            fs::write(prefix.join(name), format!("{user}{text}")).unwrap();
        }
        let conf = prefix.join("nginx.conf");
        let config = deployment.agent_config_of(
            "nginx",
            IDENTITY,
            &format!(
                "level = \"debug\"\n[[credential]]\ntask = \"serve-reports\"\nkind = \"x509-svid\"\n\
                 files = {{ dir = {:?}, reload = [{:?}, \"-p\", {prefix:?}, \"-c\", {conf:?}, \"-s\", \"reload\"] }}\n\
                 [[auth]]\nlisten = {:?}\naudience = \"https://ledger.example.org\"\n\
                 target = \"ledger\"\nclient_certificate = \"X-Client-Cert\"\n",
                prefix.join("own"),
                nginx(),
                prefix.join("auth.sock"),
            ),
        );
        let agent = Agent::start(&config, &[]);
        eventually("the server's certificate", || async { prefix.join("own/tls.crt").exists() }).await;
        agent.says("tokens for `https://ledger.example.org` are verified").await;
        fetch_list(&deployment, &prefix).await;
        let version = run(nginx(), ["-v"]).await.stderr;
        let version = version.trim().rsplit('/').next().unwrap_or_default().to_owned();
        let server = Command::new(nginx())
            .args(["-p".as_ref(), prefix.as_os_str(), "-c".as_ref(), conf.as_os_str()])
            .stdin(Stdio::null())
            .stderr(fs::File::create(prefix.join("start.log")).unwrap())
            .spawn()
            .unwrap();
        let ground = Self { deployment, tls, plain, bound, version, agent: Some(agent), server, prefix };
        let listens = || async { tokio::net::TcpStream::connect(("127.0.0.1", tls)).await.is_ok() };
        eventually("nginx listens", listens).await;
        ground
    }

    pub(super) fn agent(&self) -> &Agent {
        self.agent.as_ref().unwrap()
    }

    /// Has the agent tell what is left to tell, and end.
    pub(super) async fn stop_agent(&mut self) {
        let agent = self.agent.take().unwrap();
        agent.signal(rustix::process::Signal::TERM);
        assert_eq!(agent.ended().await, Some(0));
    }

    /// What the server complained of.
    pub(super) fn errors(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.prefix.join(name)).unwrap_or_default();
        format!("{}{}", read("start.log"), read("error.log"))
    }

    /// Fetches the newest revocation list, and has the server read it.
    pub(super) async fn refresh_list(&self) {
        fetch_list(&self.deployment, &self.prefix).await;
        let (prefix, conf) = (self.prefix.display().to_string(), self.prefix.join("nginx.conf"));
        let reloaded = run(nginx(), ["-p", &prefix, "-c", conf.to_str().unwrap(), "-s", "reload"]).await;
        assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    }

    /// The files of a certificate of the nightly run.
    pub(super) async fn certificate(&self, task: &str) -> PathBuf {
        let out = self.deployment.folder().join(task);
        let rest =
            format!("[[credential]]\ntask = {task:?}\nkind = \"certificate\"\nfiles = {{ dir = {out:?} }}\n");
        let config = self.deployment.agent_config_of(task, NIGHTLY, &rest);
        let fetched = run(program("daypass-agent"), ["oneshot", "--config", config.to_str().unwrap()]).await;
        assert_eq!(fetched.code, Some(0), "{}", fetched.stderr);
        out
    }

    fn root(&self) -> PathBuf {
        self.prefix.join("own/ca.crt")
    }

    /// What a caller is answered.
    pub(super) async fn curl(&self, port: u16, path: &str, more: &[String]) -> (u16, String) {
        let scheme = if port == self.plain { "http" } else { "https" };
        let (url, resolve) = (format!("{scheme}://{HOST}:{port}{path}"), format!("{HOST}:{port}:127.0.0.1"));
        let root = self.root();
        let mut arguments = ["-s", "-S", "--noproxy", "*", "-w", "\n%{http_code}"].map(String::from).to_vec();
        arguments.extend(["--resolve".into(), resolve, "--cacert".into(), root.display().to_string(), url]);
        arguments.extend_from_slice(more);
        let answered = run("curl", arguments).await;
        let (body, status) = answered.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{answered:?}"));
        (status.parse().unwrap_or_else(|_| panic!("{answered:?}")), body.to_owned())
    }

    /// The certificate that is served now.
    pub(super) async fn served(&self) -> String {
        let address = format!("127.0.0.1:{}", self.tls);
        run("openssl", ["s_client", "-connect", &address, "-servername", HOST])
            .await
            .stdout
            .lines()
            .skip_while(|line| !line.contains("BEGIN CERTIFICATE"))
            .take_while(|line| !line.contains("END CERTIFICATE"))
            .collect()
    }

    /// A client with this certificate that keeps its connection.
    pub(super) fn browser(&self, files: &Path) -> reqwest::Client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.root()).unwrap()).unwrap();
        let chain =
            CertificateDer::pem_file_iter(files.join("tls.crt")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(files.join("tls.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        let address = ([127, 0, 0, 1], self.tls).into();
        let builder = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls);
        builder.resolve(HOST, address).build().unwrap()
    }

    /// What it is answered; none where the connection broke.
    pub(super) async fn ask(&self, browser: &reqwest::Client) -> Option<u16> {
        let answer = browser.get(format!("https://{HOST}:{}/reports", self.tls)).send().await.ok()?;
        Some(answer.status().as_u16())
    }
}

/// The sample organisation, where the gateway serves the ledger too.
fn organisation() -> Vec<daypass_core::bundle::SourceFile> {
    let mut files = daypass_broker::dev::organisation::sample();
    let targets = files.iter_mut().find(|file| file.path == "targets.toml").unwrap();
    let served = format!("[target.ledger]\nserved_by = [{IDENTITY:?}]");
    targets.text = targets.text.replacen("[target.ledger]", &served, 1);
    files
}

async fn fetch_list(deployment: &Deployment, prefix: &Path) {
    let (next, url) =
        (prefix.join("daypass.crl.new"), format!("{}/crl", deployment.settings.issuer.as_str()));
    let ca = deployment.listener_ca.to_str().unwrap();
    let (out, place) = (next.to_str().unwrap(), prefix.join("daypass.crl"));
    let arguments = [
        "-sSf",
        "--noproxy",
        "*",
        "--retry",
        "10",
        "--retry-all-errors",
        "--retry-delay",
        "1",
        "--cacert",
        ca,
        "-o",
        out,
        &url,
    ];
    let fetched = run("curl", arguments).await;
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    fs::rename(next, place).unwrap();
}
