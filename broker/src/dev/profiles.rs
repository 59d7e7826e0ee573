//! The profiles that the printed commands use, and the proofs that they name: a certificate for the workload, ID
//! tokens that are minted anew before they end.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daypass_verify::ids::SpiffeId;
use daypass_verify::time::Seconds;

use super::organisation::Organisation;
use super::state::State;
use super::{DevError, files};
use crate::serve::Running;

/// The workload of the story.
pub(super) const NIGHTLY: &str = "prod/billing/nightly";
/// The operator of the story.
pub(super) const OPERATOR: &str = "alice-lead";
/// The issuer of tokens for CI jobs.
pub(super) const CI: &str = "ci";
/// The issuer of tokens for people.
pub(super) const STAFF: &str = "staff";

/// How often tokens in files are minted anew: they live five minutes.
const FRESH_EVERY: Duration = Duration::from_secs(60);

/// How long the workload's certificate lives: a day of development.
const CERTIFICATE_LIFE: Seconds = Seconds::new(24 * 3600);

/// What was written.
pub(super) struct Profiles {
    /// The file of profiles.
    pub(super) config: PathBuf,
    /// The operator's ID token.
    pub(super) operator_token: PathBuf,
    /// Where the printed command puts a token of the CI.
    pub(super) ci_token: PathBuf,
    /// The root of the CI issuer's listener.
    pub(super) ci_root: PathBuf,
    /// Where it mints.
    pub(super) ci_mint: String,
    /// The folder for certificates.
    pub(super) out: PathBuf,
}

/// Writes profiles, certificate and tokens.
pub(super) fn write(
    state: &State,
    organisation: &Organisation,
    broker: &Running,
) -> Result<Profiles, DevError> {
    let profiles = Profiles {
        config: state.path("daypass.toml"),
        operator_token: state.path("operator.token"),
        ci_token: state.path("ci.token"),
        ci_root: state.path("ci-ca.pem"),
        ci_mint: organisation.mint_url(CI, NIGHTLY).unwrap_or_default(),
        out: state.path("ledger-db"),
    };
    let id: SpiffeId = format!("spiffe://example.org/{NIGHTLY}")
        .parse()
        .map_err(|error: daypass_verify::ids::ParseError| DevError::Story(error.to_string()))?;
    let certificate = organisation.workloads.issue(&id, broker.desk.clock.now(), CERTIFICATE_LIFE)?;
    let (cert, key) = (state.path("nightly.pem"), state.path("nightly.key"));
    files::write_private(&cert, certificate.chain_pem().as_bytes())?;
    files::write_private(&key, certificate.key_pem().as_bytes())?;
    files::write_private(&profiles.ci_root, organisation.issuer_root(CI).unwrap_or_default().as_bytes())?;
    profiles.refresh(organisation)?;
    let text = text(state, &profiles, broker, &cert, &key)?;
    files::write_private(&profiles.config, text.as_bytes())?;
    Ok(profiles)
}

fn text(
    state: &State,
    profiles: &Profiles,
    broker: &Running,
    cert: &Path,
    key: &Path,
) -> Result<String, DevError> {
    let path = |path: &Path| toml::Value::from(path.display().to_string());
    let common = || {
        toml::Table::from_iter([
            ("broker".to_owned(), format!("https://{}", broker.api).into()),
            ("web".to_owned(), state.issuer().into()),
            ("ca".to_owned(), path(&state.listener.ca)),
            ("log_key".to_owned(), broker.log().key().to_string().into()),
        ])
    };
    let with = |name: &str, extra: &[(&str, toml::Value)]| {
        let mut table = common();
        table.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        table.insert("state".into(), path(&state.path(&format!("kept-{name}"))));
        (name.to_owned(), toml::Value::Table(table))
    };
    let named = toml::Table::from_iter([
        with("nightly", &[("cert", path(cert)), ("key", path(key))]),
        with("ci", &[("id_token_file", path(&profiles.ci_token))]),
        with("operator", &[("id_token_file", path(&profiles.operator_token))]),
    ]);
    let whole = toml::Table::from_iter([("profile".to_owned(), toml::Value::Table(named))]);
    toml::to_string(&whole).map_err(|error| DevError::Story(error.to_string()))
}

impl Profiles {
    /// Mints the operator's token anew.
    fn refresh(&self, organisation: &Organisation) -> Result<(), DevError> {
        let token = organisation.token(STAFF, OPERATOR)?;
        files::write_private(&self.operator_token, token.as_bytes())
    }

    /// Keeps the tokens in files fresh until `until`.
    pub(super) async fn keep_fresh(&self, organisation: &Organisation, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = &mut until => return,
                () = tokio::time::sleep(FRESH_EVERY) => {
                    if let Err(error) = self.refresh(organisation) {
                        tracing::error!(%error, "the operator's token could not be minted");
                    }
                }
            }
        }
    }
}
