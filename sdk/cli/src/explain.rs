//! `daypass explain`: why a request was answered as it was, or what one would get.

use daypass_sdk::Client;
use daypass_verify::ids::RequestId;

use crate::args::{CredentialKind, Explain};
use crate::ask::{self, Form};
use crate::failure::Failure;
use crate::get::reach;
use crate::output::{Output, Sheet, joined};
use crate::profile::Profile;

pub(crate) async fn run(explain: &Explain, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let client = Client::new(profile.config()?)?;
    let sheet = match explain.subject.parse::<RequestId>() {
        Ok(_) => of_request(&client, &explain.subject).await?,
        Err(_) => of_task(&client, explain).await?,
    };
    out.sheet(&sheet)
}

async fn of_request(client: &Client, id: &str) -> Result<Sheet, Failure> {
    let explanation = client.explain(id).await?;
    let mut sheet = Sheet::default();
    sheet.row("request", id);
    sheet.row("reason", &explanation.reason);
    sheet.row("because", &explanation.clause);
    sheet.row("rules", joined(&explanation.rules));
    sheet.row("known from", source(&explanation.source));
    if let Some(entry) = &explanation.entry {
        sheet.row("entry", String::from_utf8_lossy(entry));
    }
    Ok(sheet)
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
