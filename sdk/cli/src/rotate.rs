//! `daypass rotate`: a new key in the place of one.

use daypass_sdk::{Client, Rotation};

use crate::args::{KeyUse, Rotate};
use crate::failure::Failure;
use crate::output::{Output, Sheet};
use crate::profile::Profile;

pub(crate) async fn run(rotate: &Rotate, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let client = Client::new(profile.config()?)?;
    let order = Rotation {
        usage: usage(rotate.usage),
        compromised: rotate.compromised.clone(),
        reason: rotate.reason.clone(),
        validate_only: rotate.dry_run,
    };
    let rotated = client.rotate_key(&order).await?;
    let mut sheet = Sheet::default();
    let not_yet = if rotated.signs_from.is_some() { "one that is made then" } else { "none" };
    sheet.row(if rotate.dry_run { "would sign" } else { "signs" }, rotated.key.as_deref().unwrap_or(not_yet));
    sheet.row("from", rotated.signs_from.map(|from| from.to_string()).unwrap_or_default());
    match rotated.entry {
        Some(entry) => sheet.row("entry", entry),
        None if rotate.dry_run => {}
        None => sheet.row("entry", "none: the next key is on its way already"),
    }
    if rotate.compromised.is_some() {
        let live =
            rotated.live.map_or_else(|| "more than could be counted in time".into(), |it| it.to_string());
        sheet.row(if rotate.dry_run { "would end" } else { "lived" }, live);
        if !rotate.dry_run {
            sheet.row("ended", rotated.revoked);
        }
    }
    out.sheet(&sheet)
}

const fn usage(usage: KeyUse) -> daypass_sdk::KeyUse {
    match usage {
        KeyUse::Token => daypass_sdk::KeyUse::Token,
        KeyUse::Svid => daypass_sdk::KeyUse::Svid,
        KeyUse::Ca => daypass_sdk::KeyUse::Ca,
    }
}
