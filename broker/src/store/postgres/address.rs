//! Where a database is, as whom it is spoken to, and what must be true before it is.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::durability::Durability;
use crate::store::StoreError;
use crate::tls::ReloadableCertificate;

/// How long connecting may take, and how long a server may stay silent before it counts as gone.
const CONNECT: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(5);

/// Where a password comes from.
#[derive(Clone, Default)]
pub enum Password {
    /// None is needed: the server knows the role otherwise.
    #[default]
    None,
    /// This one.
    Given(Zeroizing<String>),
    /// The first line of a file, read at each connection, so that it can be changed.
    File(PathBuf),
}

/// A database, and how it is spoken to.
#[derive(Clone)]
pub struct PostgresAt {
    config: Config,
    password: Password,
    tls: MakeRustlsConnect,
    pub(super) durability: Durability,
    pub(super) owner: Option<Arc<PostgresAt>>,
    pub(super) sealer: Option<Arc<PostgresAt>>,
    schema: Arc<str>,
}

/// Where the tables of the log lie that is served.
pub(super) const SCHEMA_NAME: &str = "daypass";

impl PostgresAt {
    /// The database at `url`, `postgresql://ROLE@HOST:PORT/DATABASE`, with `sslmode=verify-full` unless it is on this
    /// machine. `ca` holds the roots (PEM) that its certificate must lead to: those of the system where there is none.
    /// `sslcert` and `sslkey` in the URL name a certificate that it is shown, which may be renewed at any time.
    ///
    /// # Errors
    /// When the URL is not one, holds a password, or asks for less than an authenticated channel where that is needed:
    /// `plaintext` says that it is not.
    pub fn new(url: &str, password: Password, ca: Option<&Path>, plaintext: bool) -> Result<Self, String> {
        let Parsed { mut config, mode, ca: ca_named, shown } = parse(url)?;
        if config.get_password().is_some() {
            return Err(
                "the URL holds a password: put it into a file and name that as `store.password_file`".into(),
            );
        }
        if config.get_user().is_none() || config.get_dbname().is_none() {
            return Err("expected `postgresql://ROLE@HOST/DATABASE`: name the role and the database".into());
        }
        let ca = ca.map(Path::to_owned).or(ca_named);
        let local = is_local(&config);
        match mode.as_deref() {
            Some("verify-full") => config.ssl_mode(SslMode::Require),
            None if !local && !plaintext => config.ssl_mode(SslMode::Require),
            None | Some("disable") if local || plaintext => config.ssl_mode(SslMode::Disable),
            Some("disable") => {
                return Err(
                    "`sslmode=disable` to another machine: take `verify-full`, or set `store.plaintext`"
                        .into(),
                );
            }
            other => {
                return Err(format!(
                    "`sslmode={}`: expected `verify-full` or `disable`",
                    other.unwrap_or_default()
                ));
            }
        };
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_hosts().len() > 1 {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.tcp_user_timeout(SILENCE).keepalives_idle(SILENCE).keepalives_interval(CONNECT);
        config.application_name("daypass-broker");
        let encrypted = config.get_ssl_mode() == SslMode::Require;
        if shown.is_some() && !encrypted {
            return Err("`sslcert` is shown over TLS only: add `sslmode=verify-full`".into());
        }
        let tls = MakeRustlsConnect::new(client_tls(ca.as_deref(), encrypted, shown)?);
        Ok(Self {
            config,
            password,
            tls,
            durability: Durability::Local,
            owner: None,
            sealer: None,
            schema: SCHEMA_NAME.into(),
        })
    }

    /// Demands that commits survive this.
    #[must_use]
    pub fn demanding(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Makes and migrates the tables as this owner.
    #[must_use]
    pub fn owned_by(mut self, owner: Self) -> Self {
        self.owner = Some(Arc::new(owner));
        self
    }

    /// Drops sealed entries as this role.
    #[must_use]
    pub fn sealed_by(mut self, sealer: Self) -> Self {
        self.sealer = Some(Arc::new(sealer));
        self
    }

    /// Whether a role that seals was named.
    #[must_use]
    pub fn seals(&self) -> bool {
        self.sealer.is_some()
    }

    /// The tables of another log in the same database.
    #[must_use]
    pub(crate) fn in_schema(&self, schema: &str) -> Self {
        let owner = self.owner.as_deref().map(|owner| Arc::new(owner.in_schema(schema)));
        Self { schema: schema.into(), owner, ..self.clone() }
    }

    /// Where its tables lie: a name that needs no quotes.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// The role that it is spoken to as.
    #[must_use]
    pub fn role(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    pub(super) fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// The configuration with the password of this moment.
    pub(super) fn config(&self) -> Result<Config, StoreError> {
        let mut config = self.config.clone();
        match &self.password {
            Password::None => {}
            Password::Given(text) => drop(config.password(text.as_bytes())),
            Password::File(path) => {
                let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
                    StoreError::Unavailable(format!(
                        "the password file `{}` could not be read: {error}",
                        path.display()
                    ))
                })?;
                config.password(text.lines().next().unwrap_or_default());
            }
        }
        Ok(config)
    }
}

/// Without the password.
impl fmt::Display for PostgresAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One port may be that of all hosts.
        let ports = self.config.get_ports().iter().cycle();
        let hosts = self.config.get_hosts().iter().zip(ports);
        let hosts: Vec<String> = hosts.map(|(host, port)| format!("{}:{port}", shown(host))).collect();
        let (role, hosts) = (self.role(), hosts.join(","));
        write!(f, "postgresql://{role}@{hosts}/{}", self.config.get_dbname().unwrap_or_default())?;
        if &*self.schema == SCHEMA_NAME { Ok(()) } else { write!(f, " schema {}", self.schema) }
    }
}

impl fmt::Debug for PostgresAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresAt({self})")
    }
}

fn shown(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

struct Parsed {
    config: Config,
    mode: Option<String>,
    ca: Option<PathBuf>,
    shown: Option<ReloadableCertificate>,
}

/// Takes what is about TLS from a URL: the library below knows neither `verify-full` nor the names of files.
fn parse(url: &str) -> Result<Parsed, String> {
    if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
        return Err("expected `postgresql://ROLE@HOST:PORT/DATABASE`".into());
    }
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut ca, mut certificate, mut key) = (None, None, None, None);
    let mut rest = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "sslmode" => mode = Some(value.into_owned()),
            "sslrootcert" => ca = Some(PathBuf::from(value.as_ref())),
            "sslcert" => certificate = Some(PathBuf::from(value.as_ref())),
            "sslkey" => key = Some(PathBuf::from(value.as_ref())),
            _ => drop(rest.append_pair(&name, &value)),
        }
    }
    // The library reads `+` as itself.
    let rest = rest.finish().replace('+', "%20");
    let config: Config = format!("{base}?{rest}").parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    })?;
    let shown = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            let opened = ReloadableCertificate::open(&certificate, &key);
            Some(opened.map_err(|error| error.to_string())?)
        }
        _ => return Err("`sslcert` and `sslkey` belong together: name both".into()),
    };
    Ok(Parsed { config, mode, ca, shown })
}

/// Whether what is said stays on this machine.
fn is_local(config: &Config) -> bool {
    let address = |ip: &IpAddr| ip.is_loopback();
    let host = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()),
    };
    if config.get_hostaddrs().is_empty() {
        !config.get_hosts().is_empty() && config.get_hosts().iter().all(host)
    } else {
        config.get_hostaddrs().iter().all(address)
    }
}

fn client_tls(
    ca: Option<&Path>,
    needed: bool,
    shown: Option<ReloadableCertificate>,
) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let failed = |error: &dyn fmt::Display| {
            format!("the roots in `{}` could not be read: {error}", path.display())
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
            roots.add(certificate.map_err(|error| failed(&error))?).map_err(|error| failed(&error))?;
        }
    } else if needed {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if needed && roots.is_empty() {
        return Err("no root can vouch for the database: name a file of roots as `store.ca_file`".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(roots);
    Ok(match shown {
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(certificate)),
        None => builder.with_no_client_auth(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Result<PostgresAt, String> {
        PostgresAt::new(url, Password::None, None, false)
    }

    #[test]
    fn a_channel_that_others_could_read_or_answer_is_refused() {
        for (url, expected) in [
            ("postgresql://daypass@db.example.org/daypass?sslmode=disable", "verify-full"),
            ("postgresql://daypass@db.example.org/daypass?sslmode=require", "verify-full"),
            ("postgresql://daypass@db.example.org/daypass?sslmode=prefer", "verify-full"),
            ("postgresql://daypass@127.0.0.1,db.example.org/daypass?sslmode=disable", "verify-full"),
            ("postgresql://daypass@localhost/daypass?hostaddr=10.0.0.1&sslmode=disable", "verify-full"),
            ("postgresql://daypass:secret@127.0.0.1/daypass", "password_file"),
            ("postgresql://daypass@127.0.0.1/daypass?sslmode=verify-full&sslcert=/x", "name both"),
            (
                "postgresql://daypass@127.0.0.1/daypass?sslmode=verify-full&sslcert=/no&sslkey=/no",
                "cannot read",
            ),
            ("postgresql://127.0.0.1/daypass", "role"),
            ("postgresql://daypass@127.0.0.1", "database"),
            ("mysql://daypass@127.0.0.1/daypass", "postgresql://"),
        ] {
            let error = at(url).unwrap_err();
            assert!(error.contains(expected), "{url}: {error}");
        }
    }

    #[test]
    fn on_this_machine_no_certificate_is_needed() {
        for url in [
            "postgresql://daypass@127.0.0.1:5433/daypass",
            "postgresql://daypass@localhost/daypass?sslmode=disable",
            "postgresql://daypass@%2Frun%2Fpostgresql/daypass",
            "postgresql:///daypass?host=/run/postgresql&user=daypass",
        ] {
            assert_eq!(at(url).unwrap().config.get_ssl_mode(), SslMode::Disable, "{url}");
        }
    }

    #[test]
    fn no_password_is_ever_shown() {
        let password = Password::Given(Zeroizing::new("hunter2".into()));
        let at = PostgresAt::new("postgresql://daypass@127.0.0.1:5433/log", password, None, false).unwrap();
        assert_eq!(at.to_string(), "postgresql://daypass@127.0.0.1:5433/log");
        assert!(!format!("{at:?} {at:#?}").contains("hunter2"));
    }

    #[test]
    fn each_host_is_shown_with_its_port() {
        let url = "postgresql://daypass@127.0.0.1:5433,localhost:5434/log";
        assert_eq!(at(url).unwrap().to_string(), url);
    }
}
