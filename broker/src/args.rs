//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Issues short-lived credentials, and writes each into the evidence log before anyone can use it.
#[derive(Debug, Parser)]
#[command(
    name = "daypass-broker",
    version,
    after_help = "Exit codes: 0 done, 1 refused, 2 usage, 4 verification failed."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Who makes the tables of a PostgreSQL store: not the role that brokers write as.
#[derive(Debug, clap::Args)]
pub(crate) struct Owner {
    /// The owner of a PostgreSQL store's tables: postgresql://OWNER@HOST/DATABASE, with the password in
    /// DAYPASS_STORE_OWNER_PASSWORD or in a file
    #[arg(long, value_name = "URL")]
    pub(crate) owner: Option<String>,
    /// A file whose first line is the owner's password
    #[arg(long, value_name = "FILE", requires = "owner")]
    pub(crate) owner_password_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A whole organisation on loopback, for development: tells its story, then serves
    Dev {
        /// Where it keeps its state
        #[arg(long, value_name = "DIR", default_value = ".daypass-dev")]
        state: PathBuf,
        /// A folder of policies of your own instead of the sample's, of the trust domain example.org: its issuers of ID
        /// tokens and its client CA run here, everybody who is declared gets a proof, and no story is told
        #[arg(long, value_name = "DIR")]
        bundle: Option<PathBuf>,
        /// Begin anew: remove what earlier starts left
        #[arg(long)]
        reset: bool,
        /// End after the story
        #[arg(long)]
        exit: bool,
    },
    /// Make a deployment: the store, the keys, a first certificate for the listeners
    Init {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The first bundle: a folder of policies
        #[arg(long, value_name = "DIR")]
        bundle: Option<PathBuf>,
        /// A name or address of this host in the listeners' certificate; repeatable
        #[arg(long, value_name = "HOST", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned()])]
        host: Vec<String>,
        #[command(flatten)]
        owner: Owner,
    },
    /// Serve
    Serve {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Give an order to the broker on this host, through its socket: works without a store or a network
    Emergency {
        /// The configuration that names the socket
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// What to do
        #[arg(value_enum)]
        order: Order,
        /// What to suspend or resume (`identity=NAME`, and so with instance, task, target, supplier, issuer or key, or
        /// `everything`), or the name of the broker that is stopped
        what: Option<String>,
        /// Why, for the log
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Make or migrate the tables of a PostgreSQL store; with --from, move a store in a file into it
    Migrate {
        /// The configuration that names the database
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The configuration of the broker that is moved; it is stopped, and never serves that file again
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        #[command(flatten)]
        owner: Owner,
    },
    /// Take in an RSA key for tokens that must be signed by RS256: sealed in the store, published, and used once it is known
    ImportKey {
        /// The configuration that names the store
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The key: PKCS#8 in PEM, readable by its owner alone
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// What it signs
        #[arg(long = "use", value_enum, default_value_t = ImportUse::Token)]
        usage: ImportUse,
        /// For how many days it signs
        #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// Read it and say what would happen, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Have the issuing CA signed by the organisation's own CA, instead of by this deployment's root
    Ca {
        #[command(subcommand)]
        order: CaOrder,
    },
    /// Check a configuration, and the bundle beside it if one is named
    Check {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// A folder of policies
        #[arg(long, value_name = "DIR")]
        bundle: Option<PathBuf>,
    },
    /// Copy the store while it is served, and verify the copy
    Backup {
        /// The configuration that names the store
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where to: a new file
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
    },
    /// Go on after a backup was restored: a new log that names what is missing, and new signing keys
    Recover {
        /// The configuration that names the store
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// A checkpoint that was kept elsewhere, or another broker's anchor, so that the gap is known; repeatable
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
        /// Go on from this store although such a checkpoint says that another history was lost
        #[arg(long)]
        forked: bool,
        #[command(flatten)]
        owner: Owner,
    },
    /// Verify a whole store, offline: every leaf, the tree, the checkpoint, and what entries say of each other
    Verify {
        /// The configuration that names the store
        #[arg(long, value_name = "FILE", required_unless_present = "store", conflicts_with = "store")]
        config: Option<PathBuf>,
        /// The store
        #[arg(long, value_name = "FILE")]
        store: Option<PathBuf>,
        /// The folder of its sealed entries
        #[arg(long, value_name = "FOLDER")]
        sealed: Option<PathBuf>,
        /// The log's verifier key, kept outside [default: the one in the log's first entry]
        #[arg(long, value_name = "VKEY")]
        key: Option<String>,
        /// The anchor file
        #[arg(long, value_name = "FILE")]
        anchor: Option<PathBuf>,
        /// The store of the log before it [default: where `recover` left it]
        #[arg(long, value_name = "FILE")]
        predecessor: Option<PathBuf>,
        /// Read the entries from this index on, and of those before it only what the state is folded from
        #[arg(long, value_name = "INDEX")]
        from: Option<u64>,
        /// Print the report as JSON, a line for each log
        #[arg(long)]
        json: bool,
    },
}

/// An order in an emergency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// Issue nothing from now on, after a restart neither
    Halt,
    /// Issue again; with WHAT, lift its suspension
    Resume,
    /// Issue nothing for WHAT, on any broker
    Suspend,
    /// Record that another broker is gone for good
    Stopped,
    /// Believe the clock as it is now
    ClockOk,
    /// Say what is wrong
    Status,
}

/// What is done about an issuing CA.
#[derive(Debug, Subcommand)]
pub(crate) enum CaOrder {
    /// Make a key, and write a request for its certificate (PKCS#10 in PEM)
    Request {
        /// The configuration that names the store
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where the request goes: a new file
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Check what was signed, publish its root, and use it once everybody can know that
    Install {
        /// The configuration that names the store
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The CA's certificate and those above it up to the root, in this order, PEM
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
        /// Check it and say what would happen, and write nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// What an imported key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ImportUse {
    /// Access tokens
    Token,
    /// JWT-SVIDs
    Svid,
}

impl Order {
    /// The order as the socket takes it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Halt => "halt",
            Self::Resume => "resume",
            Self::Suspend => "suspend",
            Self::Stopped => "stopped",
            Self::ClockOk => "clock-ok",
            Self::Status => "status",
        }
    }
}
