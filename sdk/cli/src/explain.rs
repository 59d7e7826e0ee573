//! `daypass explain`: why a request was answered as it was, or what one would get.

use daypass_sdk::Client;
use daypass_verify::ids::RequestId;
use daypass_verify::time::UnixMs;
use serde_json::Value;

use crate::args::{CredentialKind, Explain};
use crate::ask::{self, Form};
use crate::failure::Failure;
use crate::get::reach;
use crate::output::{Output, Sheet, joined, plain};
use crate::profile::Profile;

pub(crate) async fn run(explain: &Explain, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let client = Client::new(profile.config()?)?;
    let sheet = match explain.subject.parse::<RequestId>() {
        Ok(_) => of_request(&client, &explain.subject, out).await?,
        Err(_) => of_task(&client, explain).await?,
    };
    out.sheet(&sheet)
}

async fn of_request(client: &Client, id: &str, out: &Output) -> Result<Sheet, Failure> {
    let explanation = client.explain(id).await?;
    let mut sheet = Sheet::default();
    sheet.row("request", id);
    sheet.row("reason", &explanation.reason);
    sheet.row("because", &explanation.clause);
    sheet.row("rules", joined(&explanation.rules));
    sheet.row("known from", source(&explanation.source));
    if let Some(bytes) = &explanation.entry {
        add_entry(&mut sheet, bytes, out.is_json());
    }
    Ok(sheet)
}

/// The whole entry for programs; for people what they compare.
fn add_entry(sheet: &mut Sheet, bytes: &[u8], whole: bool) {
    if whole {
        return sheet.row("entry", String::from_utf8_lossy(bytes));
    }
    let entry: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let time = entry.get("time").and_then(Value::as_i64).map(|ms| UnixMs::new(ms).to_string());
    let kind = entry.get("kind").and_then(Value::as_str).unwrap_or_default();
    sheet.row("recorded", format!("{kind} at {}", time.unwrap_or_default()));
    for name in ["identity", "task", "asked", "granted"] {
        let value = entry.get(name).map(|value| value.get("name").unwrap_or(value));
        sheet.row(name, value.map(plain).unwrap_or_default());
    }
}

fn source(source: &str) -> &str {
    match source {
        "log" => "the log",
        "memory" => "the broker's memory, which a restart empties",
        other => other,
    }
}

async fn of_task(client: &Client, explain: &Explain) -> Result<Sheet, Failure> {
    let task = explain.subject.parse().map_err(|_| {
        let subject = &explain.subject;
        Failure::Usage(format!("`{subject}` is neither a request id nor a task: expected a UUID or a name"))
    })?;
    let certificate =
        matches!(explain.scope.kind, Some(CredentialKind::X509Svid | CredentialKind::CommonName));
    // Whoever asks what a request would get wants to see what it would be narrowed to.
    let scope = crate::args::ScopeArgs { allow_narrowed: true, ..explain.scope.clone() };
    let request = ask::request(task, &scope, Form { certificate, ..Form::default() })?;
    let preview = client.preview(&request).await?;
    let granted = &preview.granted;
    let mut sheet = Sheet::default();
    sheet.row("would get", &granted.task);
    sheet.row("subject", &granted.subject);
    sheet.row("audiences", joined(&granted.scope.audiences));
    sheet.row("actions", joined(&granted.scope.actions));
    sheet.row("resources", joined(&granted.scope.resources));
    sheet.row("expires", granted.expires_at);
    sheet.row("revocation", reach(granted.reach));
    sheet.row("narrowed", preview.narrowed.join(", "));
    sheet.row("request", preview.request_id.unwrap_or_default());
    Ok(sheet)
}
