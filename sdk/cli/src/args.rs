//! What can be said on the command line. No option takes a proof or a credential: only files that hold one.

mod node;
mod revoke;
mod suspend;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use daypass_verify::ids::{IdentityName, Name};
use daypass_verify::scope::{Action, Audience, Resource};
use daypass_verify::time::{Seconds, UnixMs};
use url::Url;

pub(crate) use node::Node;
pub(crate) use revoke::{Reason, Revoke};
pub(crate) use suspend::{Resume, Suspend};

/// Get short-lived credentials for one task, and read the evidence of them.
#[derive(Debug, Parser)]
#[command(name = "daypass", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// How to print: a table for people, JSON for programs
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused, 2 usage, 3 unreachable, 4 verification failed";

/// Where the broker is, and with what to prove oneself: over the environment and the profile.
#[derive(Debug, Clone, Default, ClapArgs)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// A file of profiles [default: ~/.config/daypass/config.toml]
    #[arg(long, global = true, value_name = "FILE", hide_env_values = true, env = "DAYPASS_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The profile in it [default: the keys at its top]
    #[arg(long, global = true, value_name = "NAME", hide_env_values = true, env = "DAYPASS_PROFILE")]
    pub(crate) profile: Option<String>,
    /// The broker: https://HOST:PORT
    #[arg(long, global = true, value_name = "URL", hide_env_values = true, env = "DAYPASS_BROKER")]
    pub(crate) broker: Option<Url>,
    /// Where the broker publishes its keys, which is also its issuer URL: https://HOST
    #[arg(long, global = true, value_name = "URL", hide_env_values = true, env = "DAYPASS_WEB")]
    pub(crate) web: Option<Url>,
    /// The roots that the broker's certificates are believed under, PEM
    #[arg(long, global = true, value_name = "FILE", hide_env_values = true, env = "DAYPASS_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// The ID token to show
    #[arg(long, global = true, value_name = "FILE", hide_env_values = true, env = "DAYPASS_ID_TOKEN_FILE")]
    pub(crate) id_token_file: Option<PathBuf>,
    /// The client certificate to show, PEM
    #[arg(long, global = true, value_name = "FILE", hide_env_values = true, env = "DAYPASS_CERT")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, global = true, value_name = "FILE", hide_env_values = true, env = "DAYPASS_KEY")]
    pub(crate) key: Option<PathBuf>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs: one object
    Json,
    /// For programs: one object a line; entries as the exact bytes that were hashed
    Ndjson,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Get one credential: a token on standard output, or with --out or --csr a certificate
    Get(Get),
    /// Show a token or certificate, its entry in the log, and whether it still lives
    Inspect {
        /// The file that holds it; `-` reads standard input
        file: PathBuf,
    },
    /// Say why a request was refused or narrowed, or what a request would get
    Explain(Explain),
    /// List, follow or verify the log
    Log(Log),
    /// Check the files of a bundle, offline
    Check {
        /// The folder that holds them
        directory: PathBuf,
    },
    /// End credentials before their time: your own, or as an operator
    Revoke(Revoke),
    /// Put a new key in the place of one; an operator's right
    Rotate(Rotate),
    /// Have nothing issued for something, and revoke what lives of it; an operator's right
    Suspend(Suspend),
    /// Lift a suspension; an operator's right
    Resume(Resume),
    /// Let a machine in; an operator's right
    #[command(subcommand)]
    Node(Node),
    /// Say whether the broker answers, and what this client knows
    Status,
    /// Say what a refusal means
    Error {
        /// The reason; without one, the list of reasons
        code: Option<String>,
    },
    /// Print the script that completes this command line in a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page of the program, or of one of its commands
    Man {
        /// The command, `log verify` for instance; without one, the program
        command: Vec<String>,
    },
}

/// `get`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) request: Asked,
    /// A folder for tls.crt, tls.key and ca.crt: a certificate for a key that is made here
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// A certificate request, PEM or DER: a certificate for its key
    #[arg(long, value_name = "FILE")]
    pub(crate) csr: Option<PathBuf>,
    /// Your own name for this run: a job, a ticket; it is recorded
    #[arg(long, value_name = "NAME")]
    pub(crate) run: Option<String>,
    /// A token that is bound to nothing, for tasks that permit it
    #[arg(long)]
    pub(crate) bearer: bool,
}

/// What is asked for.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct Asked {
    /// The declared task
    pub(crate) task: Name,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
}

/// What narrows a task.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct ScopeArgs {
    /// The identity, where the proof fits several
    #[arg(long, value_name = "NAME")]
    pub(crate) identity: Option<IdentityName>,
    /// For whom [default: the task's]
    #[arg(long, value_name = "AUDIENCE")]
    pub(crate) audience: Vec<Audience>,
    /// What to do; repeatable [default: the task's]
    #[arg(long, value_name = "ACTION")]
    pub(crate) action: Vec<Action>,
    /// On what; repeatable [default: the task's]
    #[arg(long, value_name = "RESOURCE")]
    pub(crate) resource: Vec<Resource>,
    /// At most this long, `15m` for instance [default: the task's]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Seconds>,
    /// The profile of the credential [default: the task's first]
    #[arg(long, value_enum)]
    pub(crate) kind: Option<CredentialKind>,
    /// Take less than was asked, rather than nothing
    #[arg(long)]
    pub(crate) allow_narrowed: bool,
}

/// The profiles of credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CredentialKind {
    /// A token: RFC 9068
    AccessToken,
    /// A token: SPIFFE JWT-SVID
    JwtSvid,
    /// A certificate: SPIFFE X509-SVID
    X509Svid,
    /// A certificate: the name is the subject's common name
    CommonName,
}

/// `explain`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// The id of a request, or a task
    pub(crate) subject: String,
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
}

/// `rotate`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Rotate {
    /// Which of the broker's keys
    #[arg(value_enum, value_name = "USE")]
    pub(crate) usage: KeyUse,
    /// The id of a key whose secret others know: it is unpublished at once, and all that it signed is revoked
    #[arg(long, value_name = "KEY")]
    pub(crate) compromised: Option<String>,
    /// Why, in words; it is recorded
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Say what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What the broker's keys are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyUse {
    /// Signs access tokens
    Token,
    /// Signs JWT-SVIDs
    Svid,
    /// Signs certificates
    Ca,
}

/// `log`.
#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Log {
    #[command(subcommand)]
    pub(crate) command: Option<LogCommand>,
    #[command(flatten)]
    pub(crate) list: List,
}

/// Which entries.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct List {
    /// Of this log, by its origin, `example.org/evidence/2026h2` for instance [default: the newest]
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) log: Option<String>,
    /// Stay, and print each new entry
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this kind, `credential.issued` for instance; repeatable
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Vec<String>,
    /// Only those about this identity
    #[arg(long, value_name = "NAME")]
    pub(crate) identity: Option<IdentityName>,
    /// Only those about this credential
    #[arg(long, value_name = "ID")]
    pub(crate) credential: Option<String>,
    /// Only those about this request
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
    /// Not earlier: a time, or how long ago, `2h` for instance
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<UnixMs>,
    /// Earlier than this
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<UnixMs>,
    /// From this index
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    pub(crate) start: u64,
    /// At most so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

/// What else to do with the log.
#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Verify entries: those of a file, one a line, or all that the broker serves
    Verify {
        /// The file; without one, the broker is asked
        file: Option<PathBuf>,
        /// A checkpoint that was kept
        #[arg(long, value_name = "FILE")]
        checkpoint: Option<PathBuf>,
        /// The key of the log, `name+id+key`; `--key VKEY` says the same [default: the profile's]
        #[arg(long, value_name = "VKEY")]
        log_key: Option<String>,
    },
    /// Print the newest checkpoint, a signed note
    Checkpoint {
        /// Of this log, by its origin: of one that is closed, the last [default: the newest]
        #[arg(long, value_name = "ORIGIN")]
        log: Option<String>,
    },
}

fn duration(text: &str) -> Result<Seconds, String> {
    let expected = "expected a whole number of seconds, such as `15m` or `1h30m`";
    let parsed = humantime::parse_duration(text).map_err(|_| expected)?;
    let seconds = u32::try_from(parsed.as_secs()).map_err(|_| expected)?;
    if parsed.subsec_nanos() == 0 { Ok(Seconds::new(seconds)) } else { Err(expected.into()) }
}

fn moment(text: &str) -> Result<UnixMs, String> {
    let ago = humantime::parse_duration(text).ok().and_then(|ago| i64::try_from(ago.as_millis()).ok());
    match ago {
        Some(millis) => Ok(crate::now().plus_millis(-millis)),
        None => UnixMs::parse(text)
            .map_err(|_| "expected RFC 3339, such as `2027-01-31T12:00:00Z`, or `2h`".into()),
    }
}

/// The same, ahead.
fn moment_ahead(text: &str) -> Result<UnixMs, String> {
    let ahead = humantime::parse_duration(text).ok().and_then(|ahead| i64::try_from(ahead.as_millis()).ok());
    ahead.map_or_else(|| moment(text), |millis| Ok(crate::now().plus_millis(millis)))
}

#[cfg(test)]
mod tests;
