//! From the command line to a request of the SDK.

use daypass_sdk::{Binding, CertificateProfile, IssueRequest, Kind};
use daypass_verify::credential::Profile;
use daypass_verify::ids::Name;
use daypass_verify::scope::Scope;

use crate::args::{CredentialKind, ScopeArgs};
use crate::failure::Failure;

/// What makes the kind of credential, beside its profile.
#[derive(Debug, Default)]
pub(crate) struct Form {
    /// A certificate, not a token.
    pub(crate) certificate: bool,
    /// The certificate request, DER.
    pub(crate) csr: Option<Vec<u8>>,
    /// A token that is bound to nothing.
    pub(crate) bearer: bool,
}

/// The request that the arguments describe.
///
/// # Errors
/// When they contradict each other.
pub(crate) fn request(task: Name, args: &ScopeArgs, form: Form) -> Result<IssueRequest, Failure> {
    Ok(IssueRequest {
        identity: args.identity.clone(),
        scope: Scope {
            audiences: args.audience.iter().cloned().collect(),
            actions: args.action.iter().cloned().collect(),
            resources: args.resource.iter().cloned().collect(),
        },
        ttl: args.ttl,
        kind: kind(args.kind, form)?,
        allow_narrowed: args.allow_narrowed,
        ..IssueRequest::token(task)
    })
}

fn kind(named: Option<CredentialKind>, form: Form) -> Result<Kind, Failure> {
    let token = |profile, bearer| {
        let binding = if bearer { Binding::Bearer } else { Binding::Certificate };
        Ok(Kind::Token { profile, binding })
    };
    let certificate = |profile, form: Form| match form {
        Form { bearer: true, .. } => Err(Failure::Usage("`--bearer` is for tokens: leave it out".into())),
        form => Ok(Kind::Certificate { profile, csr: form.csr }),
    };
    match (named, form.certificate) {
        (None, false) => token(None, form.bearer),
        (Some(CredentialKind::AccessToken), false) => token(Some(Profile::AccessToken), form.bearer),
        (Some(CredentialKind::JwtSvid), false) => token(Some(Profile::JwtSvid), form.bearer),
        (None, true) => certificate(CertificateProfile::Unspecified, form),
        (Some(CredentialKind::X509Svid), true) => certificate(CertificateProfile::X509Svid, form),
        (Some(CredentialKind::CommonName), true) => certificate(CertificateProfile::CommonName, form),
        (Some(_), true) => {
            Err(Failure::Usage("that `--kind` is a token: leave `--out` and `--csr` out".into()))
        }
        (Some(_), false) => {
            Err(Failure::Usage("that `--kind` is a certificate: give `--out` or `--csr`".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_must_fit_where_the_credential_goes() {
        let fits = |named, certificate, bearer| kind(named, Form { certificate, csr: None, bearer }).is_ok();
        assert!(fits(None, false, true) && fits(None, true, false));
        assert!(
            fits(Some(CredentialKind::JwtSvid), false, false)
                && !fits(Some(CredentialKind::JwtSvid), true, false)
        );
        assert!(
            fits(Some(CredentialKind::X509Svid), true, false)
                && !fits(Some(CredentialKind::X509Svid), false, false)
        );
        assert!(!fits(None, true, true));
    }
}
