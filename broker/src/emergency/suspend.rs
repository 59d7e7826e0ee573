//! Orders about one thing: suspended for all brokers, and let go on again. These need the log, and so some room in it.

use daypass_core::state::State;
use daypass_evidence::entry::{Body, CredentialIssued, Entry, Index, Selector, SuspensionSet};
use daypass_verify::ids::Name;

use crate::store::{Live, PREDECESSOR, Reader, StoreError};

/// What the reason of each suspension by an emergency order begins with.
pub(super) const SUSPENDED: &str = "emergency suspension";

/// How many live credentials are looked at, at most, to say how many an order is about: it must not wait for more.
const COUNTED_MAX: u64 = 50_000;

const PAGE: u32 = 1_000;

/// What an order is about: `everything`, or `identity=NAME` and so on.
pub(super) fn selector(text: &str) -> Result<Selector, String> {
    let mut selector = Selector::default();
    let (kind, name) = text.split_once('=').unwrap_or((text, ""));
    let wrong = |error: &dyn std::fmt::Display| format!("`{text}`: {error}");
    match kind {
        "everything" if name.is_empty() => selector.everything = true,
        "identity" => selector.identity = Some(name.parse().map_err(|error| wrong(&error))?),
        "instance" if !name.is_empty() => selector.instance = Some(name.to_owned()),
        "task" => selector.task = Some(name.parse().map_err(|error| wrong(&error))?),
        "target" => selector.target = Some(name.parse().map_err(|error| wrong(&error))?),
        "supplier" => selector.supplier = Some(name.parse().map_err(|error| wrong(&error))?),
        "issuer" => selector.issuer = Some(name.parse().map_err(|error| wrong(&error))?),
        "key" => selector.key = Some(name.parse().map_err(|error| wrong(&error))?),
        _ => {
            return Err(format!(
                "`{text}` selects nothing: expected `everything`, or `identity=NAME`, and so with instance, task, target, supplier, issuer or key"
            ));
        }
    }
    Ok(selector)
}

/// The entry that suspends what `selector` selects, of which `live` credentials were found alive.
pub(super) fn suspension(selector: Selector, reason: &str, live: u64) -> Body {
    let reason = format!("{SUSPENDED}: {reason}");
    let reason = reason.trim_end_matches(": ").to_owned();
    SuspensionSet { selector, reason, until_ms: None, revoked: 0, live, drill: None, revokes: false }.into()
}

/// The suspensions by emergency orders of exactly what `selector` selects.
pub(super) fn standing(state: &State, selector: &Selector) -> Vec<Index> {
    let by_order = |set: &SuspensionSet| set.selector == *selector && set.reason.starts_with(SUSPENDED);
    state.suspensions().filter(|(_, set)| by_order(set)).map(|(index, _)| index).collect()
}

/// How many live credentials an order is about, as far as they are looked at.
pub(super) fn live(reader: &dyn Reader, state: &State, selector: &Selector) -> Result<u64, StoreError> {
    if selector.everything {
        return reader.live();
    }
    let (mut looked_at, mut found, mut after) = (0, 0, None);
    while looked_at < COUNTED_MAX {
        let page = reader.live_after(after, PAGE)?;
        let Some(last) = page.last() else { break };
        (after, looked_at) = (Some(*last), looked_at + page.len() as u64);
        for live in page.iter().filter(|live| live.index < PREDECESSOR) {
            found += u64::from(is_about(reader, state, selector, live)?);
        }
    }
    Ok(found)
}

fn is_about(
    reader: &dyn Reader,
    state: &State,
    selector: &Selector,
    live: &Live,
) -> Result<bool, StoreError> {
    let rows = reader.rows(live.index, 1)?;
    let entry = rows.first().and_then(|row| Entry::read(&row.bytes).ok());
    Ok(match entry.map(|entry| entry.body) {
        Some(Body::CredentialIssued(issued)) => {
            selects(state, selector, &issued)
                || (selector.issuer.is_some() && selector.issuer == issuer(reader, issued.proof.at)?)
        }
        _ => false,
    })
}

/// The name of the issuer that was declared at `at`.
fn issuer(reader: &dyn Reader, at: Index) -> Result<Option<Name>, StoreError> {
    let rows = reader.rows(at, 1)?;
    Ok(match rows.first().and_then(|row| Entry::read(&row.bytes).ok()).map(|entry| entry.body) {
        Some(Body::RegistryChanged(changed)) => changed.name.as_str().parse().ok(),
        _ => None,
    })
}

fn selects(state: &State, selector: &Selector, issued: &CredentialIssued) -> bool {
    let supplier = || {
        let bundle = state.bundle()?;
        bundle.declared().identities.get(issued.identity.name.as_str())?.supplier.clone()
    };
    selector.identity.as_ref() == Some(&issued.identity.name)
        || selector.task.as_ref() == Some(&issued.task.name)
        || selector.target.as_ref() == Some(&issued.target.name)
        || selector.key.as_ref() == Some(&issued.credential.key)
        || (selector.instance.is_some() && selector.instance == issued.proof.instance)
        || (selector.supplier.is_some() && selector.supplier == supplier())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_selects_one_thing_or_everything() {
        assert!(selector("everything").unwrap().everything);
        let named = selector("identity=prod/billing/nightly").unwrap();
        assert_eq!(named.identity.unwrap().as_str(), "prod/billing/nightly");
        for good in ["task=post-invoices", "target=a", "supplier=a", "issuer=a", "instance=pod 1"] {
            assert_ne!(selector(good).unwrap(), Selector::default(), "{good}");
        }
        for bad in ["", "everything=a", "identity=", "identity=UPPER", "task", "instance=", "role=a", "key="]
        {
            assert!(selector(bad).is_err(), "{bad}");
        }
    }
}
