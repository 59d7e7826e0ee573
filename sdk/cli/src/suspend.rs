//! `daypass suspend` and `daypass resume`.

use daypass_sdk::{Client, Suspension};

use crate::args::{Resume, Suspend};
use crate::failure::Failure;
use crate::output::{Output, Sheet, joined};
use crate::profile::Profile;

pub(crate) async fn suspend(order: &Suspend, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let client = Client::new(profile.config()?)?;
    let selector = order.what.selector();
    let selector = selector.ok_or_else(|| Failure::Usage("expected what to suspend".into()))?;
    let suspension = Suspension {
        selector,
        reason: order.reason.clone(),
        until: order.until,
        keep_live: order.keep_live,
        drill: order.drill.clone(),
        validate_only: order.dry_run,
    };
    let suspended = client.suspend(&suspension).await?;
    let mut sheet = Sheet::default();
    if order.dry_run {
        sheet.row(if order.keep_live { "would live on" } else { "would end" }, suspended.live);
        sheet.row("credentials", joined(&suspended.credentials));
        return out.sheet(&sheet);
    }
    sheet.row("suspension", suspended.id.as_deref().unwrap_or_default());
    if let Some(entry) = suspended.entry {
        sheet.row("entry", entry);
    }
    if let Some(until) = order.until {
        sheet.row("until", until);
    }
    sheet.row("lived", suspended.live);
    sheet.row("ended", suspended.revoked);
    if suspended.goes_on {
        sheet.row("", "the rest is being ended: `daypass log --kind credential.ended` shows it");
    }
    out.sheet(&sheet)
}

pub(crate) async fn resume(order: &Resume, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let client = Client::new(profile.config()?)?;
    let entry = client.resume(&order.suspension, &order.reason).await?;
    let mut sheet = Sheet::default();
    sheet.row("lifted", &order.suspension);
    if let Some(entry) = entry {
        sheet.row("entry", entry);
    }
    out.sheet(&sheet)
}
