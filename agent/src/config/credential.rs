//! `[[credential]]`: what is asked for, and the files that it goes to.

use std::path::{Path, PathBuf};

use daypass_sdk::{Binding, CertificateProfile, IssueRequest, Kind};
use daypass_verify::credential::Profile;
use daypass_verify::ids::Name;
use daypass_verify::scope::Scope;
use toml::de::DeValue;

use super::enforcer::Enforcer;
use super::proxy::Proxy;
use super::section::Section;
use super::socket::Socket;
use super::value::{Value, word};
use super::workload;

/// The longest name of a run, in bytes.
const RUN_LEN_MAX: usize = 128;

/// One credential that is kept fresh.
#[derive(Debug, Clone)]
pub struct Credential {
    /// What it is called here.
    pub name: Name,
    /// What is asked for.
    pub request: IssueRequest,
    /// Where it is written.
    pub files: Option<Files>,
}

/// A directory that always holds one whole credential, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The directory.
    pub directory: PathBuf,
    /// To whom the files belong; none: to the agent's own user.
    pub owner: Option<Owner>,
    /// Whether others may write where the directory is.
    pub shared_parent: bool,
    /// The command to run after each replacement; empty: none.
    pub reload: Vec<String>,
}

/// To whom files belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number; none: left as it is.
    pub gid: Option<u32>,
}

impl Credential {
    /// Whether it is a token.
    #[must_use]
    pub fn is_token(&self) -> bool {
        matches!(self.request.kind, Kind::Token { .. })
    }

    /// Whether it can be a certificate with a common name.
    #[must_use]
    pub fn may_have_common_name(&self) -> bool {
        let Kind::Certificate { profile, .. } = &self.request.kind else { return false };
        *profile != CertificateProfile::X509Svid
    }

    /// Whether it is one of the two kinds that the SPIFFE Workload API gives.
    #[must_use]
    pub fn is_svid(&self) -> bool {
        let Kind::Certificate { profile, .. } = &self.request.kind else {
            return matches!(self.request.kind, Kind::Token { profile: Some(Profile::JwtSvid), .. });
        };
        *profile == CertificateProfile::X509Svid
    }
}

/// The words for kinds: those of tasks, and two for whatever the task declares first.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Token(Option<Profile>),
    Certificate(CertificateProfile),
}

const KINDS: [(&str, Asked); 6] = [
    ("token", Asked::Token(None)),
    ("certificate", Asked::Certificate(CertificateProfile::Unspecified)),
    ("at+jwt", Asked::Token(Some(Profile::AccessToken))),
    ("jwt-svid", Asked::Token(Some(Profile::JwtSvid))),
    ("x509-svid", Asked::Certificate(CertificateProfile::X509Svid)),
    ("common-name", Asked::Certificate(CertificateProfile::CommonName)),
];

impl Value for Asked {
    fn read(value: &DeValue<'_>) -> Result<Self, String> {
        word(value, &KINDS)
    }
}

/// Every `[[credential]]`, and whether each could be read.
pub(super) fn read_all(whole: &mut Section<'_>, folder: &Path) -> (Vec<Credential>, bool) {
    let sections = whole.sections("credential");
    let declared = sections.len();
    let mut all: Vec<Credential> = Vec::new();
    for mut section in sections {
        let Some(read) = read(&mut section, folder) else {
            section.finish();
            continue;
        };
        if all.iter().any(|other| other.name == read.name) {
            section.refuse("another one has the same name: expected a `name` of its own");
        }
        let directory = |it: &Credential| it.files.as_ref().map(|files| files.directory.clone());
        if let Some(taken) = directory(&read)
            && all.iter().any(|other| directory(other).as_ref() == Some(&taken))
        {
            section.refuse("another one has the same `files.dir`: expected a directory of its own");
        }
        section.finish();
        all.push(read);
    }
    let complete = all.len() == declared;
    (all, complete)
}

fn read(section: &mut Section<'_>, folder: &Path) -> Option<Credential> {
    let task = section.required::<Name>("task", "the name of a declared task");
    if let Some(task) = &task {
        section.call(&format!("credential `{task}`"));
    }
    let name = section.optional::<Name>("name").or_else(|| task.clone());
    let kind = read_kind(section);
    let scope = Scope {
        audiences: section.list("audiences").into_iter().collect(),
        actions: section.list("actions").into_iter().collect(),
        resources: section.list("resources").into_iter().collect(),
    };
    let run = section.optional::<String>("run");
    if run.as_ref().is_some_and(|run| run.len() > RUN_LEN_MAX) {
        section.wrong("run", &format!("expected at most {RUN_LEN_MAX} bytes"));
    }
    let (identity, ttl) = (section.optional("identity"), section.optional("ttl"));
    let allow_narrowed = section.optional("allow_narrowed").unwrap_or(false);
    let has_workload = section.has("workload");
    let workload = section.section("workload").and_then(workload::read);
    let files = section.section("files").and_then(|section| read_files(section, folder));
    let task = task.filter(|_| workload.is_some() == has_workload)?;
    let request = IssueRequest {
        identity,
        scope,
        ttl,
        kind: kind?,
        run,
        allow_narrowed,
        workload,
        ..IssueRequest::token(task.clone())
    };
    Some(Credential { name: name.unwrap_or(task), request, files })
}

fn read_kind(section: &mut Section<'_>) -> Option<Kind> {
    let asked = if section.has("kind") { section.optional("kind")? } else { Asked::Token(None) };
    let bearer = section.optional("bearer").unwrap_or(false);
    Some(match asked {
        Asked::Token(profile) => {
            let binding = if bearer { Binding::Bearer } else { Binding::Certificate };
            Kind::Token { profile, binding }
        }
        Asked::Certificate(profile) => {
            if bearer {
                section
                    .wrong("bearer", "a certificate is bound to its key: expected `bearer` only for tokens");
            }
            Kind::Certificate { profile, csr: None }
        }
    })
}

fn read_files(mut section: Section<'_>, folder: &Path) -> Option<Files> {
    let directory = section.required::<PathBuf>("dir", "a directory that holds nothing else");
    let (uid, gid) = (section.optional("uid"), section.optional("gid"));
    if uid.is_none() && gid.is_some() {
        section.wrong("gid", "stands alone: expected `uid` beside it");
    }
    let shared_parent = section.optional("shared_parent").unwrap_or(false);
    let reload = section.list("reload");
    let owner = uid.map(|uid| Owner { uid, gid });
    section.finish();
    Some(Files { directory: folder.join(directory?), owner, shared_parent, reload })
}

/// Refuses what would be asked for and given to nobody.
pub(super) fn refuse_unused(
    whole: &Section<'_>,
    credentials: &[Credential],
    sockets: &[Socket],
    proxies: &[Proxy],
    enforcers: &[Enforcer],
) {
    for credential in credentials {
        let name = &credential.name;
        let taken = credential.files.is_some()
            || sockets.iter().any(|it| it.credentials.contains(name))
            || proxies.iter().any(|it| it.credential == *name)
            || enforcers.iter().any(|it| it.tls.as_ref().is_some_and(|tls| tls.credential == *name));
        if !taken {
            whole.refuse(&format!(
                "credential `{name}` goes nowhere: expected `[credential.files]`, or a `[[socket]]`, `[[proxy]]` or `[[enforcer]]` that uses it"
            ));
        }
    }
}
