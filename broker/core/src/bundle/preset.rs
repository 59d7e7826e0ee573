//! Issuers that many have: what is known of each, so that a declaration says only what is its own. A preset fills in
//! what a declaration leaves out, and what it fills in is part of the compiled bundle.

#[cfg(test)]
mod tests;

use daypass_evidence::entry::ProofUse;
use daypass_verify::ids::SpiffeId;
use daypass_verify::time::Seconds;
use serde::{Deserialize, Serialize};

/// A kind of issuer whose proofs have a known form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Projected service-account tokens of a Kubernetes cluster.
    Kubernetes,
    /// ID tokens of GitHub Actions jobs.
    GithubActions,
    /// ID tokens of GitLab CI jobs.
    GitlabCi,
    /// Identity tokens of Google service accounts.
    Google,
    /// Tokens of the outbound identity federation of an AWS account.
    Aws,
    /// JWT-SVIDs of a SPIFFE deployment, SPIRE's for instance.
    SpiffeJwt,
    /// X509-SVIDs of a SPIFFE deployment.
    SpiffeX509,
}

/// What a preset says where a declaration says nothing.
pub(super) struct Defaults {
    /// `oidc` or `client_ca`.
    pub(super) form: &'static str,
    /// The issuer's URL, where all of its customers have the same.
    pub(super) url: Option<&'static str>,
    pub(super) algs: &'static [&'static str],
    pub(super) typs: &'static [&'static str],
    pub(super) proof_ttl_max: Seconds,
    pub(super) instance_claim: Option<&'static str>,
    pub(super) replay: ProofUse,
    pub(super) proof_caps: bool,
    /// What each clause must name: of every row at least one.
    pub(super) required: &'static [&'static [&'static str]],
}

const TOKENS: Defaults = Defaults {
    form: "oidc",
    url: None,
    algs: &["RS256"],
    typs: &["JWT"],
    proof_ttl_max: Seconds::new(3600),
    instance_claim: None,
    replay: ProofUse::Once,
    proof_caps: false,
    required: &[&["sub"]],
};

/// The URL that a cluster gives itself where nobody set another.
pub(super) const CLUSTER_URL: &str = "https://kubernetes.default.svc.cluster.local";

/// Hosts whose issuers speak for the jobs and accounts of everybody.
const SHARED: [(&str, &str); 3] = [
    ("token.actions.githubusercontent.com", "github-actions"),
    ("gitlab.com", "gitlab-ci"),
    ("accounts.google.com", "google"),
];

impl Preset {
    pub(super) fn defaults(self) -> Defaults {
        match self {
            // The token lies in a file until the kubelet renews it: it is shown again and again, by one pod.
            Self::Kubernetes => Defaults {
                algs: &["ES256", "RS256"],
                instance_claim: Some("/kubernetes.io/pod/uid"),
                replay: ProofUse::UntilExpiry,
                proof_caps: true,
                ..TOKENS
            },
            Self::GithubActions => Defaults {
                url: Some("https://token.actions.githubusercontent.com"),
                proof_ttl_max: Seconds::new(600),
                instance_claim: Some("run_id"),
                required: &[
                    &["repository_id"],
                    &["repository_owner_id"],
                    &["event_name"],
                    &["environment", "ref"],
                ],
                ..TOKENS
            },
            Self::GitlabCi => Defaults {
                url: Some("https://gitlab.com"),
                instance_claim: Some("job_id"),
                required: &[
                    &["project_id"],
                    &["namespace_id"],
                    &["pipeline_source"],
                    &["environment", "ref_path", "ref_protected"],
                ],
                ..TOKENS
            },
            Self::Google => Defaults { url: Some("https://accounts.google.com"), ..TOKENS },
            Self::Aws => Defaults { algs: &["ES384", "RS256"], ..TOKENS },
            Self::SpiffeJwt => Defaults {
                algs: &["ES256", "ES384", "RS256"],
                typs: &["JWT", "JOSE"],
                proof_ttl_max: Seconds::new(600),
                ..TOKENS
            },
            Self::SpiffeX509 => {
                Defaults { form: "client_ca", replay: ProofUse::UntilExpiry, required: &[], ..TOKENS }
            }
        }
    }

    /// What subjects of its proofs look like, where `subject` does not look like one.
    pub(super) fn other_subject_expected(self, subject: &str) -> Option<&'static str> {
        let (fits, expected) = match self {
            Self::Kubernetes => {
                let names = subject.strip_prefix("system:serviceaccount:").and_then(|it| it.split_once(':'));
                let fits = names.is_some_and(|(space, name)| is_dns_label(space) && is_dns_name(name));
                (fits, "`system:serviceaccount:NAMESPACE:NAME`")
            }
            Self::Google => {
                let digits = !subject.is_empty() && subject.bytes().all(|b| b.is_ascii_digit());
                (
                    digits,
                    "the account's unique id, digits alone: its e-mail address can be given to another account",
                )
            }
            Self::Aws => (is_arn(subject), "the ARN of a role, `arn:aws:iam::ACCOUNT:role/NAME`"),
            Self::SpiffeJwt => {
                (subject.parse::<SpiffeId>().is_ok(), "a SPIFFE ID, `spiffe://TRUST-DOMAIN/PATH`")
            }
            Self::GithubActions | Self::GitlabCi | Self::SpiffeX509 => return None,
        };
        (!fits).then_some(expected)
    }

    /// The claim that says what set a job off, and the values of it that somebody from outside can bring about.
    pub(super) fn outside_events(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::GithubActions => Some((
                "event_name",
                &[
                    "discussion",
                    "discussion_comment",
                    "fork",
                    "issue_comment",
                    "issues",
                    "pull_request",
                    "pull_request_review",
                    "pull_request_review_comment",
                    "pull_request_target",
                    "watch",
                    "workflow_run",
                ],
            )),
            Self::GitlabCi => {
                Some(("pipeline_source", &["external_pull_request_event", "merge_request_event"]))
            }
            _ => None,
        }
    }

    /// The preset that an issuer on `host` must be declared by.
    pub(super) fn of_shared_host(host: &str) -> Option<&'static str> {
        SHARED.into_iter().find(|(shared, _)| *shared == host).map(|(_, preset)| preset)
    }
}

/// RFC 1123: a namespace.
fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

fn is_arn(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, _, account, resource) = (next(), next(), next(), next(), next(), next());
    let account_fits = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    arn == "arn"
        && partition.starts_with("aws")
        && matches!(service, "iam" | "sts")
        && account_fits
        && resource.contains('/')
}
