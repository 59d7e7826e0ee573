//! A proof for everybody who is declared, in files: a certificate where the workloads' CA vouches for them, else an ID
//! token of an issuer that runs here, which is minted anew before it ends.

use std::path::{Path, PathBuf};

use daypass_core::bundle::object::{IssuerKind, ProofClause};
use daypass_verify::ids::{Name, SpiffeId};
use daypass_verify::time::{Seconds, UnixMs};

use super::organisation::Organisation;
use super::{DevError, files};

/// How long a workload's certificate lives: a day of development.
const CERTIFICATE_LIFE: Seconds = Seconds::new(24 * 3600);

/// How somebody proves itself here.
pub(super) struct Proof {
    /// The identity or the operator, as it is declared.
    pub(super) who: String,
    /// A task of an identity; none of an operator.
    pub(super) task: Option<Name>,
    pub(super) kept: Kept,
}

/// Where the proof lies.
pub(super) enum Kept {
    Certificate { cert: PathBuf, key: PathBuf },
    Token { issuer: Name, file: PathBuf },
}

/// Writes the first proof that can be made for each identity and each operator below `folder`.
pub(super) fn write(folder: &Path, organisation: &Organisation, now: UnixMs) -> Result<Vec<Proof>, DevError> {
    let declared = organisation.bundle.declared();
    let identities = declared.identities.iter();
    let identities =
        identities.map(|(name, it)| (name.to_string(), &it.proofs, it.tasks.iter().next().cloned()));
    let operators = declared.operators.iter().map(|(name, it)| (name.to_string(), &it.proofs, None));
    let mut made = Vec::new();
    for (who, clauses, task) in identities.chain(operators) {
        let path = folder.join(&who);
        files::private_directory(path.parent().unwrap_or(folder))?;
        if let Some(kept) = first(&path, &who, clauses, organisation, now)? {
            made.push(Proof { who, task, kept });
        }
    }
    made.iter().try_for_each(|proof| proof.refresh(organisation))?;
    Ok(made)
}

/// A certificate before a token: it may be shown as often as one likes.
fn first(
    path: &Path,
    who: &str,
    clauses: &[ProofClause],
    organisation: &Organisation,
    now: UnixMs,
) -> Result<Option<Kept>, DevError> {
    let issuers = &organisation.bundle.declared().issuers;
    let by_certificate = clauses.iter().find_map(|clause| {
        let of_ca = matches!(issuers.get(&clause.issuer)?.kind, IssuerKind::ClientCa { .. });
        clause.spiffe_id.as_ref().filter(|_| of_ca)
    });
    if let Some(id) = by_certificate {
        let id: SpiffeId = id.parse().map_err(|error| DevError::Story(format!("`{who}`: {error}")))?;
        let issued = organisation.workloads.issue(&id, now, CERTIFICATE_LIFE)?;
        let (cert, key) = (path.with_added_extension("pem"), path.with_added_extension("key"));
        files::write_private(&cert, issued.chain_pem().as_bytes())?;
        files::write_private(&key, issued.key_pem().as_bytes())?;
        return Ok(Some(Kept::Certificate { cert, key }));
    }
    let by_token = clauses.iter().find(|clause| organisation.claims(clause.issuer.as_str(), who).is_some());
    Ok(by_token.map(|clause| Kept::Token {
        issuer: clause.issuer.clone(),
        file: path.with_added_extension("token"),
    }))
}

impl Proof {
    /// Operators have no tasks.
    pub(super) const fn is_of_an_operator(&self) -> bool {
        self.task.is_none()
    }

    /// Mints the token anew.
    pub(super) fn refresh(&self, organisation: &Organisation) -> Result<(), DevError> {
        let Kept::Token { issuer, file } = &self.kept else { return Ok(()) };
        files::write_private(file, organisation.token(issuer.as_str(), &self.who)?.as_bytes())
    }
}
