//! `daypass status`: whether the broker answers, and what this client knows.

use daypass_sdk::{Client, EntryFilter};
use daypass_verify::time::UnixMs;
use secrecy::ExposeSecret as _;

use crate::failure::Failure;
use crate::inspect::decode::unverified_claims;
use crate::output::{Output, Sheet};
use crate::profile::Profile;

/// Asks everything that can be asked, prints what came, and fails with the first thing that failed.
pub(crate) async fn run(profile: &Profile, out: &Output) -> Result<(), Failure> {
    let config = profile.config()?;
    let mut sheet = Sheet::default();
    sheet.row("profile", &profile.name);
    sheet.row("broker", config.broker.as_str().trim_end_matches('/'));
    let client = Client::new(config)?;
    sheet.row("proof", proof(profile, &client));
    let mut failed = None;
    let mut tell = |sheet: &mut Sheet, name: &str, outcome: Result<String, Failure>| match outcome {
        Ok(text) => sheet.row(name, text),
        Err(failure) => {
            sheet.row(name, format!("failed: {}", failure.text()));
            failed.get_or_insert(failure);
        }
    };
    tell(&mut sheet, "health", health(&client).await);
    tell(&mut sheet, "keys", keys(&client).await);
    tell(&mut sheet, "log", log(&client).await);
    out.sheet(&sheet)?;
    failed.map_or(Ok(()), Err)
}

async fn health(client: &Client) -> Result<String, Failure> {
    Ok(if client.is_serving().await? { "serving" } else { "answers, and does not serve" }.into())
}

async fn keys(client: &Client) -> Result<String, Failure> {
    let published = client.published().await?;
    let (keys, roots) = (published.token_keys.len(), published.roots.len());
    Ok(format!("{keys} for tokens and {roots} root(s) at {}", published.issuer))
}

/// Origin and size; the time too, where the caller may read the last entry.
async fn log(client: &Client) -> Result<String, Failure> {
    let (checkpoint, _) = client.checkpoint().await?;
    let size = format!("{} with {} entries, checkpoint verified", checkpoint.origin, checkpoint.size);
    let last =
        EntryFilter { start: checkpoint.size.saturating_sub(1), limit: Some(1), ..EntryFilter::default() };
    let time = match client.entries(last).await {
        Ok(mut entries) => entries.next().await.ok().flatten().and_then(|entry| {
            let value: serde_json::Value = serde_json::from_slice(&entry.bytes).ok()?;
            value.get("time")?.as_i64().map(|ms| UnixMs::new(ms).to_string())
        }),
        Err(_) => None,
    };
    Ok(time.map_or(size.clone(), |time| format!("{size}, the last of {time}")))
}

/// What proves the caller, and until when.
fn proof(profile: &Profile, client: &Client) -> String {
    let certificate = || match client.holder().not_after() {
        Ok(until) => format!("client certificate until {until}{}", passed(until)),
        Err(error) => error.to_string(),
    };
    match profile.id_token_file() {
        Some(path) => format!("ID token `{}` {}", path.display(), id_token_end(path)),
        None if client.holder().is_fresh() => "none: name `id_token_file`, or `cert` and `key`".into(),
        None => certificate(),
    }
}

fn id_token_end(path: &std::path::Path) -> String {
    let text = std::fs::read_to_string(path).map(secrecy::SecretString::from);
    let Ok(token) = text else { return "cannot be read".into() };
    let exp = unverified_claims(token.expose_secret().trim())
        .and_then(|claims| claims.get("exp").and_then(serde_json::Value::as_i64));
    match exp.map(UnixMs::from_seconds) {
        Some(until) => format!("until {until}{}", passed(until)),
        None => "has no end that can be read".into(),
    }
}

fn passed(until: UnixMs) -> &'static str {
    if until < crate::now() { ", which has passed" } else { "" }
}
