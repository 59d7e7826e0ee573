//! `daypass inspect`: a credential decoded, then checked against what the broker publishes and what its log says.

pub(crate) mod decode;
mod evidence;

use std::io::Read as _;
use std::path::Path;

use daypass_evidence::entry::Body;
use daypass_sdk::Client;

use crate::failure::Failure;
use crate::output::{Output, Sheet};
use crate::profile::Profile;
use decode::Decoded;
use evidence::Found;

/// The longest input, in bytes: what a chain may have at most, as PEM.
const INPUT_LEN_MAX: u64 = 128 * 1024;

/// Prints what the credential says, then what could be checked and what could not.
pub(crate) async fn run(file: &Path, profile: Result<Profile, Failure>, out: &Output) -> Result<(), Failure> {
    let decoded = decode::decode(&read(file)?)?;
    let mut sheet = decoded.sheet.clone();
    let outcome = match connect(profile) {
        Ok(client) => check(&client, &decoded, &mut sheet).await,
        Err(failure) => {
            sheet.row("not checked", "signature, entry, inclusion: no broker to ask");
            Err(failure)
        }
    };
    out.sheet(&sheet)?;
    outcome
}

fn connect(profile: Result<Profile, Failure>) -> Result<Client, Failure> {
    Ok(Client::new(profile?.config()?)?)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let shown = file.display();
    let refuse = |error| Failure::Usage(format!("cannot read `{shown}`: {error}"));
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().take(INPUT_LEN_MAX + 1).read_to_end(&mut bytes).map_err(refuse)?;
    } else {
        let opened = std::fs::File::open(file).map_err(refuse)?;
        opened.take(INPUT_LEN_MAX + 1).read_to_end(&mut bytes).map_err(refuse)?;
    }
    match u64::try_from(bytes.len()) {
        Ok(len) if len <= INPUT_LEN_MAX => Ok(bytes),
        _ => Err(Failure::Usage(format!("`{shown}` is too long: expected one token or certificate chain"))),
    }
}

/// Each check adds its row; the first that fails is the outcome, and the worst one wins.
async fn check(client: &Client, decoded: &Decoded, sheet: &mut Sheet) -> Result<(), Failure> {
    let signature = match client.published().await {
        Ok(published) => decoded.verify(&published, crate::now()),
        Err(error) => Err(error.into()),
    };
    tell(sheet, "signature", &signature);
    let found = evidence::find(client, decoded).await;
    let entry = found.as_ref().map(Found::describe).map_err(|failure| Failure::Usage(failure.text()));
    tell(sheet, "entry", &entry);
    if let Ok(found) = &found {
        tell(sheet, "inclusion", &Ok(found.inclusion.clone()));
        if let Some(asked_by) = asked_by(found) {
            sheet.row("asked by", asked_by);
        }
        sheet.row("live until", live_until(decoded, found));
        sheet.row("revocation", reach(found));
    }
    worst(signature.map(|_| ()), found.map(|_| ()))
}

fn tell(sheet: &mut Sheet, name: &str, outcome: &Result<String, Failure>) {
    match outcome {
        Ok(text) => sheet.row(name, text),
        Err(failure @ (Failure::Verification(_) | Failure::Broker(daypass_sdk::Error::Unverified(_)))) => {
            sheet.row(name, format!("DOES NOT HOLD: {}", failure.text()));
        }
        Err(failure) => sheet.row(name, format!("not checked: {}", failure.text())),
    }
}

/// What does not hold outweighs what could not be checked.
fn worst(first: Result<(), Failure>, second: Result<(), Failure>) -> Result<(), Failure> {
    match (first, second) {
        (Err(first), Err(second)) => Err(if second.exit_code() > first.exit_code() { second } else { first }),
        (first, second) => first.and(second),
    }
}

/// The node that asked for its holder, and what it attested.
fn asked_by(found: &Found) -> Option<String> {
    let Body::CredentialIssued(issued) = &found.entry.body else { return None };
    let via = issued.proof.via.as_ref()?;
    let unit = via.unit.as_ref().map(|unit| format!(", unit {unit}")).unwrap_or_default();
    let uid = via.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
    Some(format!("{}{unit}{uid}", via.node))
}

fn live_until(decoded: &Decoded, found: &Found) -> String {
    if let Some(ending) = &found.ending {
        return format!("{ending}: it has ended");
    }
    let passed = decoded.expires_at < crate::now();
    format!("{}{}", decoded.expires_at, if passed { ", which has passed" } else { "" })
}

fn reach(found: &Found) -> &'static str {
    use daypass_evidence::entry::Reach;
    let Body::CredentialIssued(issued) = &found.entry.body else { return "" };
    match issued.credential.reach {
        Reach::None => "does not reach the target: it lives until its own end",
        Reach::Feed => "declared to reach the target by the signed feed",
        Reach::Introspection => "declared to reach the target whenever it asks the broker",
        Reach::Crl => "declared to reach the target by the revocation list",
        Reach::Enforcer => "declared to reach the target by the enforcer beside it",
        Reach::Proxy => "declared to reach the target by the proxy in front of it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_outweighs_what_was_not_checked() {
        let code = |first, second| worst(first, second).map_or_else(|failure| failure.exit_code(), |()| 0);
        let (bad, unknown) = (|| Failure::Verification("x".into()), || Failure::Usage("y".into()));
        assert_eq!(code(Ok(()), Ok(())), 0);
        assert_eq!(code(Err(unknown()), Err(bad())), 4);
        assert_eq!(code(Err(bad()), Err(unknown())), 4);
        assert_eq!(code(Ok(()), Err(unknown())), 2);
    }
}
