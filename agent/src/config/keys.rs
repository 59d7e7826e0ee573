//! Every key of the configuration, once: its default, and what it means. The reference page is written from here.

mod requests;

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its section, with its brackets; empty: the top of the file.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What holds where it is left out, in words or as TOML; none: it must be given.
    pub default: Option<&'static str>,
    /// An example, as TOML.
    pub example: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

const fn key(
    section: &'static str,
    name: &'static str,
    default: Option<&'static str>,
    example: &'static str,
    meaning: &'static str,
) -> Key {
    Key { section, name, default, example, meaning }
}

const NODE: &str = "[node]";
const SEALED: &str = "[sealed]";
const CREDENTIAL: &str = "[[credential]]";
const WORKLOAD: &str = "[credential.workload]";
const FILES: &str = "[credential.files]";
const SOCKET: &str = "[[socket]]";
const ENFORCER: &str = "[[enforcer]]";
const EXEC: &str = "[exec]";
/// What a list holds where it is left out.
const EMPTY: Option<&str> = Some("`[]`");
/// What holds where nothing is.
const NONE: Option<&str> = Some("none");

/// All of them, in the order of the reference.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().chain(requests::KEYS)
}

const KEYS: &[Key] = &[
    key("", "broker", None, r#""https://broker.example.org:8443""#, "The broker's `api`."),
    key(
        "",
        "web",
        None,
        r#""https://daypass.example.org""#,
        "The broker's `web`, which is also its issuer URL: keys and roots are fetched from there, and each credential is verified under them before it is given out.",
    ),
    key(
        "",
        "ca",
        None,
        r#""/etc/daypass/ca.pem""#,
        "The roots that the broker's own certificates are believed under, PEM; no others are. Read again when the file changes.",
    ),
    key(
        "",
        "log_key",
        Some("as the broker says at the first use"),
        r#""example.org/evidence/2027h1+0b3fc095+AfgiHbG59AWRL3QMlLHhPZuYyH+l/52G7lu7GLjRC5/R""#,
        "The key that signs the log's checkpoints: each credential must come with a proof that its issuance is in that log.",
    ),
    key(
        "",
        "state",
        NONE,
        r#""/var/lib/daypass-agent""#,
        "A directory for what should outlive the process: the newest checkpoint of the log, its key, and the certificate that binds tokens. Never a credential.",
    ),
    key(
        "",
        "id_token_file",
        NONE,
        r#""/var/run/secrets/daypass/token""#,
        "The agent's own proof: a token of the platform, for instance a projected one of Kubernetes. Read anew at each use.",
    ),
    key(
        "",
        "cert",
        NONE,
        r#""/etc/daypass/agent.pem""#,
        "The agent's own proof: a certificate, PEM, leaf first. Read again when the file changes. Tokens are then bound to it, and whoever uses them needs its key.",
    ),
    key("", "key", NONE, r#""/etc/daypass/agent.key""#, "Its key, PEM."),
    key(
        "",
        "level",
        Some(r#"`"info"`"#),
        r#""info""#,
        "The most that is written to standard error: `error`, `warn`, `info`, `debug`. Never a token, a proof or a key.",
    ),
    key(
        NODE,
        "dir",
        None,
        r#""/var/lib/daypass-agent/node""#,
        "Instead of another proof: the certificate of the machine as a node, which is renewed by itself, and kept here with its key, 0600. It is made if its parent is there.",
    ),
    key(
        NODE,
        "code_file",
        NONE,
        r#""/var/lib/daypass-agent/code""#,
        "Where the one-time code is put that `daypass node add` printed: it is traded for a certificate as soon as it is there, and removed.",
    ),
    key(
        NODE,
        "task",
        Some(r#"`"node"`"#),
        r#""node""#,
        "The declared task of kind `node` by which the certificate is asked for.",
    ),
    key(
        SEALED,
        "dir",
        None,
        r#""/var/lib/daypass-agent/sealed""#,
        "Where each credential is kept with its key, encrypted (AES-256-GCM), so that an agent that is started again while the broker is away gives out what is still valid. Without this section nothing of a credential is on disk but its files. It is made if its parent is there.",
    ),
    key(
        SEALED,
        "key_file",
        None,
        r#""/run/credentials/daypass-agent@billing.service/seal""#,
        "The key: 32 random bytes and nothing else, in a file of mode 0600 or 0400 that belongs to root or the agent's user; best one that systemd hands over (`LoadCredential=`). Whoever has it and `dir` has the credentials.",
    ),
    key(CREDENTIAL, "task", None, r#""ledger-db""#, "The declared task that a credential is asked for."),
    key(
        CREDENTIAL,
        "name",
        Some("the task"),
        r#""db""#,
        "What it is called here: by sockets, and in messages.",
    ),
    key(
        CREDENTIAL,
        "kind",
        Some(r#"`"token"`"#),
        r#""certificate""#,
        "`token` or `certificate`, as the task declares; or in so many words `at+jwt`, `jwt-svid`, `x509-svid`, `common-name`.",
    ),
    key(
        CREDENTIAL,
        "ttl",
        Some("the task's"),
        r#""30m""#,
        "At most this long. It is renewed at two thirds of what was granted.",
    ),
    key(
        CREDENTIAL,
        "identity",
        NONE,
        r#""prod/billing/nightly""#,
        "Which identity is meant, only where the proof fits several.",
    ),
    key(CREDENTIAL, "audiences", Some("the task's"), r#"["https://ledger.example.org"]"#, "For whom it is."),
    key(CREDENTIAL, "actions", Some("the task's"), r#"["invoice:read"]"#, "What it permits."),
    key(CREDENTIAL, "resources", Some("the task's"), r#"["eu/*"]"#, "On what."),
    key(
        CREDENTIAL,
        "bearer",
        Some("`false`"),
        "false",
        "Whether the token is bound to no key, so that whoever has it can use it. Only for tasks that permit it.",
    ),
    key(
        CREDENTIAL,
        "run",
        NONE,
        r#""invoices of the night""#,
        "Your own name for what is done, at most 128 bytes. It is recorded.",
    ),
    key(
        CREDENTIAL,
        "allow_narrowed",
        Some("`false`"),
        "false",
        "Whether less than was asked is taken, rather than nothing.",
    ),
    key(
        WORKLOAD,
        "uid",
        None,
        "1000",
        "Whom the machine speaks for, where `[node]` is the proof: the number of the workload's user. The broker compares it with the `workload` of an identity's proof, and what the credential goes to must be that user's alone.",
    ),
    key(
        WORKLOAD,
        "unit",
        NONE,
        r#""billing.service""#,
        "Its systemd unit; then it goes to sockets with the same `units`, and into no files.",
    ),
    key(
        WORKLOAD,
        "instance",
        NONE,
        r#""billing@2""#,
        "Which running copy it is, where there are several: at most 256 bytes. It is recorded, and can be suspended alone.",
    ),
    key(
        FILES,
        "dir",
        None,
        r#""/run/billing/db""#,
        "An absolute path, or one from the configuration's folder. It is made if it is missing and its parent is there. No part of it may be a link, and nobody but root and the agent's user may write on the way.",
    ),
    key(
        FILES,
        "uid",
        Some("the agent's user"),
        "1000",
        "The number of the user to whom the files belong. Another than its own only root can give.",
    ),
    key(FILES, "gid", Some("as it comes"), "1000", "The number of their group. The mode is 0600 always."),
    key(
        FILES,
        "shared_parent",
        Some("`false`"),
        "false",
        "Whether others may write in the directory that `dir` is in, as in an `emptyDir` volume of Kubernetes. They cannot change the files, but put something else in the place of `dir`.",
    ),
    key(
        FILES,
        "reload",
        EMPTY,
        r#"["systemctl", "reload", "nginx"]"#,
        "A command that is run after each replacement, without a shell, for ten seconds at most. Many replacements at once are one run.",
    ),
    key(
        SOCKET,
        "path",
        None,
        r#""/run/daypass/billing.sock""#,
        "Where the Unix socket is. Its directory must be as safe as one for files.",
    ),
    key(
        SOCKET,
        "serves",
        None,
        r#""token""#,
        "`token`: `GET /token?task=TASK` over HTTP/1.1. `workload-api`: the SPIFFE Workload API, for credentials of kind `x509-svid` and `jwt-svid`.",
    ),
    key(
        SOCKET,
        "shared_parent",
        Some("`false`"),
        "false",
        "Whether others may write in that directory, as in an `emptyDir` volume of Kubernetes: they can put another socket in its place.",
    ),
    key(
        SOCKET,
        "credentials",
        Some("all that fit"),
        r#"["post-invoices"]"#,
        "The names of the credentials that it gives. They must be of one identity: one socket, one identity.",
    ),
    key(
        SOCKET,
        "uids",
        Some("the agent's user"),
        "[1000]",
        "Which users may ask, by number. Every condition that is given has to hold: user, group and unit.",
    ),
    key(
        SOCKET,
        "gids",
        EMPTY,
        "[1000]",
        "Which groups may ask: the process's own group, not the others that its user is in.",
    ),
    key(
        SOCKET,
        "units",
        EMPTY,
        r#"["billing.service"]"#,
        "Which systemd units may ask. It narrows `uids`; it does not replace it.",
    ),
    key(
        ENFORCER,
        "target",
        None,
        r#""ledger-db""#,
        "The declared target that this server is. The agent's identity must be in its `served_by`.",
    ),
    key(
        ENFORCER,
        "postgresql",
        None,
        r#""host=db1.example.org user=daypass_enforcer sslmode=verify-full""#,
        "Where the server is asked, and as whom: a role with `pg_read_all_stats` and `pg_signal_backend` and nothing else. At a Unix socket, `host=/run/postgresql user=daypass_enforcer`, the server knows it by the agent's user (`peer`); over TCP by a certificate, with `sslmode=verify-full` and nothing less. `port` and `hostaddr` may stand beside `host`.",
    ),
    key(
        ENFORCER,
        "ca",
        Some("required over TCP"),
        r#""/etc/daypass/ledger-db-ca.pem""#,
        "The roots of the server's certificate, PEM; no others are believed. Read at each connection.",
    ),
    key(
        ENFORCER,
        "credential",
        Some("required over TCP"),
        r#""watch-ledger-db""#,
        "The name of the credential that is shown: a certificate of kind `common-name` whose common name is the role. Each renewal is used by a new connection at once.",
    ),
    key(
        ENFORCER,
        "crl_file",
        NONE,
        r#""/etc/postgresql/15/main/daypass.crl""#,
        "Where the revocation lists of the broker's CAs are put, for `ssl_crl_file` of the server. Only for a target whose `reach` is `crl`.",
    ),
    key(
        ENFORCER,
        "reload",
        EMPTY,
        r#"["systemctl", "reload", "postgresql"]"#,
        "The command that has the server read the lists again, for ten seconds at most.",
    ),
    key(
        ENFORCER,
        "roles",
        Some("those that were seen with a credential"),
        r#"["billing_nightly"]"#,
        "Roles that credentials open, beside those that were seen so since the agent was started: their sessions without a credential of Daypass are reported as left over, at once and then once an hour.",
    ),
    key(
        ENFORCER,
        "left_over",
        Some(r#"`"report"`"#),
        r#""end""#,
        "What else becomes of such a session: `report`, nothing; `end`, it is ended, where its role is in `roles`.",
    ),
    key(
        EXEC,
        "command",
        None,
        r#"["/usr/bin/billing", "--config", "/etc/billing.toml"]"#,
        "A program and its arguments. It is started once every credential is there, gets each signal that the agent gets, and the agent ends as it ends. It finds credentials in their files or at a socket, never in its arguments or its environment.",
    ),
    key(
        EXEC,
        "reload_signal",
        NONE,
        r#""SIGHUP""#,
        "The signal that it gets when a credential was replaced: `SIGHUP`, `SIGUSR1` or `SIGUSR2`.",
    ),
    key(
        EXEC,
        "reload",
        EMPTY,
        r#"["/usr/bin/billing", "reload"]"#,
        "The command that is run when a credential was replaced, for ten seconds at most.",
    ),
    key(
        EXEC,
        "restart",
        Some(r#"`"never"`"#),
        r#""on-failure""#,
        "Whether it is started again when it ended by itself: `never`, `on-failure`, `always`; after one second, then twice as long each time, up to a minute.",
    ),
];
