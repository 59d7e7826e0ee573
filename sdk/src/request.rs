//! What is asked for.

use daypass_proto::v1;
use daypass_proto::v1::issue_request::Credential;
use daypass_proto::v1::token_parameters::Confirmation;
use daypass_verify::credential::Profile;
use daypass_verify::ids::{CredentialId, IdentityName, Name};
use daypass_verify::scope::Scope;
use daypass_verify::time::Seconds;

/// One credential for one task. What is left empty is the task's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssueRequest {
    /// The declared task.
    pub task: Name,
    /// The identity; only where the proof fits several.
    pub identity: Option<IdentityName>,
    /// Audiences, actions, resources; an empty set is the task's.
    pub scope: Scope,
    /// At most this long.
    pub ttl: Option<Seconds>,
    /// Token or certificate.
    pub kind: Kind,
    /// The caller's own name for this run: a job, a ticket. At most 128 bytes; it is recorded.
    pub run: Option<String>,
    /// The credential that this one renews.
    pub supersedes: Option<CredentialId>,
    /// Take less than was asked, rather than nothing.
    pub allow_narrowed: bool,
    /// The workload that it is for, as its machine's agent attests; only for a client that proves itself as a node.
    pub workload: Option<Workload>,
}

/// A process on a node's machine, as the agent there has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// Its systemd unit.
    pub unit: Option<String>,
    /// The number of its user.
    pub uid: u32,
    /// Which running instance it is, where there are several: at most 256 bytes; it is recorded.
    pub instance: Option<String>,
}

impl Workload {
    fn to_wire(&self) -> v1::Delegation {
        v1::Delegation {
            unit: self.unit.clone().unwrap_or_default(),
            uid: self.uid,
            instance: self.instance.clone().unwrap_or_default(),
            ..v1::Delegation::default()
        }
    }
}

/// The kind of credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A signed token.
    Token {
        /// Absent: as the task declares, an access token first.
        profile: Option<Profile>,
        /// To what it is bound.
        binding: Binding,
    },
    /// A certificate.
    Certificate {
        /// Unspecified: as the task declares, an X509-SVID first.
        profile: v1::CertificateProfile,
        /// PKCS#10, DER; absent: a key is made here.
        csr: Option<Vec<u8>>,
    },
}

/// To what a token is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binding {
    /// To the client's certificate: whoever shows the token must have its key (RFC 8705).
    #[default]
    Certificate,
    /// To nothing: whoever has the token can use it. Only for tasks that permit it.
    Bearer,
}

impl IssueRequest {
    /// A token with all that the task declares.
    #[must_use]
    pub fn token(task: Name) -> Self {
        Self::new(task, Kind::Token { profile: None, binding: Binding::Certificate })
    }

    /// A certificate with all that the task declares, for a key that is made here.
    #[must_use]
    pub fn certificate(task: Name) -> Self {
        Self::new(task, Kind::Certificate { profile: v1::CertificateProfile::Unspecified, csr: None })
    }

    /// The certificate by which a node proves itself to the broker, for the key of this request (PKCS#10, DER): with the code
    /// that let it in as the proof, and from then on with the certificate of before, whose id is `supersedes`.
    #[must_use]
    pub fn node(task: Name, csr: Vec<u8>, supersedes: Option<CredentialId>) -> Self {
        let kind = Kind::Certificate { profile: v1::CertificateProfile::Node, csr: Some(csr) };
        Self { supersedes, ..Self::new(task, kind) }
    }

    fn new(task: Name, kind: Kind) -> Self {
        Self {
            task,
            identity: None,
            scope: Scope::default(),
            ttl: None,
            kind,
            run: None,
            supersedes: None,
            allow_narrowed: false,
            workload: None,
        }
    }

    /// The message, less what the client adds.
    pub(crate) fn to_wire(&self, csr: Vec<u8>) -> v1::IssueRequest {
        v1::IssueRequest {
            task: self.task.to_string(),
            identity: self.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
            audiences: self.scope.audiences.iter().map(ToString::to_string).collect(),
            actions: self.scope.actions.iter().map(ToString::to_string).collect(),
            resources: self.scope.resources.iter().map(ToString::to_string).collect(),
            ttl: self.ttl.map(|ttl| prost_types::Duration { seconds: ttl.get().into(), nanos: 0 }),
            credential: Some(self.kind.to_wire(csr)),
            run: self.run.clone().unwrap_or_default(),
            supersedes: self.supersedes.map(|id| id.to_string()).unwrap_or_default(),
            refuse_narrowed: !self.allow_narrowed,
            delegation: self.workload.as_ref().map(Workload::to_wire),
            ..v1::IssueRequest::default()
        }
    }
}

impl Kind {
    /// Whether it is the certificate by which a node proves itself to the broker.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self, Self::Certificate { profile: v1::CertificateProfile::Node, .. })
    }

    fn to_wire(&self, csr: Vec<u8>) -> Credential {
        match self {
            Self::Token { profile, binding } => {
                let profile = match profile {
                    None => v1::TokenProfile::Unspecified,
                    Some(Profile::AccessToken) => v1::TokenProfile::AccessToken,
                    Some(Profile::JwtSvid) => v1::TokenProfile::JwtSvid,
                };
                // Said only where it is a wish of its own: by itself a token is bound whenever that is possible.
                let confirmation = (*binding == Binding::Bearer).then_some(Confirmation::Certificate(false));
                Credential::Token(v1::TokenParameters { profile: profile.into(), confirmation })
            }
            Self::Certificate { profile, .. } => {
                let profile = (*profile).into();
                Credential::Certificate(v1::CertificateParameters { profile, csr: csr.into() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_refuses_to_be_narrowed_unless_its_user_allows_it() {
        let request = IssueRequest::token("post-invoices".parse().unwrap());
        assert!(request.to_wire(Vec::new()).refuse_narrowed);
        let lenient = IssueRequest { allow_narrowed: true, ..request };
        assert!(!lenient.to_wire(Vec::new()).refuse_narrowed);
    }

    #[test]
    fn a_bearer_token_is_asked_for_in_so_many_words() {
        let confirmation = |binding| {
            let kind = Kind::Token { profile: None, binding };
            match IssueRequest::new("t".parse().unwrap(), kind).to_wire(Vec::new()).credential {
                Some(Credential::Token(token)) => token.confirmation,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(confirmation(Binding::Certificate), None);
        assert_eq!(confirmation(Binding::Bearer), Some(Confirmation::Certificate(false)));
    }
}
