//! `daypass revoke`: the end of credentials before their time.

use std::path::Path;

use daypass_sdk::{Client, Revocation, RevocationReason, Selection};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::args::{Reason, Revoke};
use crate::failure::Failure;
use crate::output::{Output, Sheet};
use crate::profile::Profile;

/// How many ids a table shows: a program reads all that the broker names.
const SHOWN: usize = 20;

pub(crate) async fn run(revoke: &Revoke, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let order = Revocation {
        selection: selection(revoke)?,
        issued_before: revoke.issued_before,
        reason: reason(revoke.reason),
        comment: revoke.comment.clone(),
        drill: revoke.drill.clone().unwrap_or_default(),
        validate_only: revoke.dry_run,
    };
    let revoked = Client::new(profile.config()?)?.revoke_selected(&order).await?;
    let mut sheet = Sheet::default();
    sheet.row(if revoke.dry_run { "would end" } else { "ended" }, revoked.count);
    match revoked.entry {
        Some(entry) => sheet.row("entry", entry),
        None if revoke.dry_run => {}
        None => sheet.row("entry", "none: nothing of it lives"),
    }
    if revoked.goes_on {
        sheet.row("goes on", "more is being ended: ask again to see that nothing is left");
    }
    for (reach, count) in revoked.reach.iter().filter(|(reach, _)| *reach != "none") {
        sheet.row(&format!("told by {reach}"), count);
    }
    if let Some(count) = revoked.reach.get("none") {
        sheet.row("live on", format!("{count}: nothing tells their targets, they end by their own time"));
    }
    let all = out.is_json() || revoked.named.len() <= SHOWN;
    let shown = if all { revoked.named.len() } else { SHOWN };
    let mut ids: Vec<String> = revoked.named.iter().take(shown).map(ToString::to_string).collect();
    let more = revoked.count.saturating_sub(ids.len() as u64);
    if more > 0 {
        ids.push(format!("and {more} more"));
    }
    sheet.row("credentials", ids.join(" "));
    out.sheet(&sheet)
}

fn selection(revoke: &Revoke) -> Result<Selection, Failure> {
    let what = &revoke.what;
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
    };
    let chosen = [
        what.credential.map(Selection::Credential),
        what.digest.map(Selection::Digest),
        what.identity.clone().map(Selection::Identity),
        what.instance.clone().map(Selection::Instance),
        what.task.clone().map(Selection::Task),
        what.target.clone().map(Selection::Target),
        what.supplier.clone().map(Selection::Supplier),
        what.issuer.clone().map(Selection::Issuer),
        what.key_id.clone().map(Selection::Key),
    ];
    if let Some(selection) = chosen.into_iter().flatten().next() {
        return Ok(selection);
    }
    if let Some(path) = &what.token_file {
        let text = String::from_utf8(read(path)?);
        let text = text.map_err(|_| Failure::Usage(format!("{}: expected a token", path.display())))?;
        return Ok(Selection::Token(text.trim().into()));
    }
    let path = what.certificate.as_deref().ok_or_else(|| Failure::Usage("expected what to revoke".into()))?;
    let bytes = read(path)?;
    let first = CertificateDer::from_pem_slice(&bytes).map_or(bytes, |der| der.to_vec());
    Ok(Selection::Certificate(first))
}

const fn reason(reason: Reason) -> RevocationReason {
    match reason {
        Reason::KeyCompromise => RevocationReason::KeyCompromise,
        Reason::CaCompromise => RevocationReason::CaCompromise,
        Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
        Reason::Superseded => RevocationReason::Superseded,
        Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
        Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
    }
}
