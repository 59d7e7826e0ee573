//! The profiles that the printed commands use: one for each who is declared, by its name, and short ones for those of the
//! story.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::organisation::Organisation;
use super::proofs::{self, Kept, Proof};
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

/// How often operators' tokens are minted anew: each order spends one.
const FRESH_EVERY: Duration = Duration::from_secs(1);

/// And those of workloads, which live five minutes: once in so many times.
const WORKLOADS_EVERY: u64 = 60;

/// What was written.
pub(super) struct Profiles {
    /// The file of profiles.
    pub(super) config: PathBuf,
    /// A file for a shell to read: where the broker is, in the variables that the programs know.
    pub(super) environment: PathBuf,
    /// Everybody who can prove itself, each with a profile of its name.
    pub(super) proofs: Vec<Proof>,
    /// Where the printed command puts a token of the CI.
    pub(super) ci_token: PathBuf,
    /// The root of the CI issuer's listener.
    pub(super) ci_root: PathBuf,
    /// Where it mints.
    pub(super) ci_mint: String,
    /// The folder for certificates.
    pub(super) out: PathBuf,
}

/// Writes profiles, certificates and tokens.
pub(super) fn write(
    state: &State,
    organisation: &Organisation,
    broker: &Running,
) -> Result<Profiles, DevError> {
    let profiles = Profiles {
        config: state.path("daypass.toml"),
        environment: state.path("env"),
        proofs: proofs::write(&state.path("proofs"), organisation, broker.desk.clock.now())?,
        ci_token: state.path("ci.token"),
        ci_root: state.path("ci-ca.pem"),
        ci_mint: organisation.mint_url(CI, NIGHTLY).unwrap_or_default(),
        out: state.path("ledger-db"),
    };
    files::write_private(&profiles.ci_root, organisation.issuer_root(CI).unwrap_or_default().as_bytes())?;
    let text = text(state, &profiles, broker)?;
    files::write_private(&profiles.config, text.as_bytes())?;
    files::write_private(&profiles.environment, environment(state, &profiles, broker).as_bytes())?;
    Ok(profiles)
}

fn text(state: &State, profiles: &Profiles, broker: &Running) -> Result<String, DevError> {
    let path = |path: &Path| toml::Value::from(path.display().to_string());
    let common = || {
        toml::Table::from_iter([
            ("broker".to_owned(), format!("https://{}", broker.api).into()),
            ("web".to_owned(), state.issuer().into()),
            ("ca".to_owned(), path(&state.listener.ca)),
            ("log_key".to_owned(), broker.log().key().to_string().into()),
        ])
    };
    let with = |name: &str, kept: &Kept| {
        let mut table = common();
        match kept {
            Kept::Certificate { cert, key } => {
                table.extend([("cert".to_owned(), path(cert)), ("key".to_owned(), path(key))]);
            }
            Kept::Token { file, .. } => table.extend([("id_token_file".to_owned(), path(file))]),
        }
        let kept = format!("kept-{}", name.replace('/', "-"));
        table.insert("state".into(), path(&state.path(&kept)));
        (name.to_owned(), toml::Value::Table(table))
    };
    let mut named: toml::Table = profiles.proofs.iter().map(|it| with(&it.who, &it.kept)).collect();
    for (short, who) in [("nightly", NIGHTLY), ("operator", OPERATOR)] {
        named.extend(profiles.proofs.iter().find(|it| it.who == who).map(|it| with(short, &it.kept)));
    }
    if !profiles.ci_mint.is_empty() {
        let issuer = CI.parse().map_err(|_| DevError::Key("a name"))?;
        named.extend([with("ci", &Kept::Token { issuer, file: profiles.ci_token.clone() })]);
    }
    let whole = toml::Table::from_iter([("profile".to_owned(), toml::Value::Table(named))]);
    toml::to_string(&whole).map_err(|error| DevError::Story(error.to_string()))
}

fn environment(state: &State, profiles: &Profiles, broker: &Running) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let (config, ca) = (profiles.config.display().to_string(), state.listener.ca.display().to_string());
    format!(
        "export DAYPASS_CONFIG={}\nexport DAYPASS_BROKER=https://{}\nexport DAYPASS_WEB={}\nexport DAYPASS_CA={}\n",
        quoted(&config),
        broker.api,
        state.issuer(),
        quoted(&ca)
    )
}

impl Profiles {
    /// Keeps the tokens in files fresh until `until`.
    pub(super) async fn keep_fresh(&self, organisation: &Organisation, until: impl Future<Output = ()>) {
        tokio::pin!(until);
        for time in 1_u64.. {
            let all = time.is_multiple_of(WORKLOADS_EVERY);
            tokio::select! {
                () = &mut until => return,
                () = tokio::time::sleep(FRESH_EVERY) => {
                    let mut due = self.proofs.iter().filter(|proof| all || proof.is_of_an_operator());
                    let refreshed = due.try_for_each(|proof| proof.refresh(organisation));
                    if let Err(error) = refreshed {
                        tracing::error!(%error, "a token could not be minted");
                    }
                }
            }
        }
    }
}
