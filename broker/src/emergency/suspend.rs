//! Orders about one thing: suspended for all brokers, and let go on again. These need the log, and so some room in it.

use daypass_core::state::State;
use daypass_evidence::entry::{Body, Index, Selector, SuspensionSet};

use crate::revocation::Matching;
use crate::store::{Reader, StoreError};

/// What the reason of each suspension by an emergency order begins with.
pub(super) const SUSPENDED: &str = "emergency suspension";

/// How many live credentials are looked at, at most, to say how many an order is about: it must not wait for more.
const COUNTED_MAX: u64 = 50_000;

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
pub(super) fn live(reader: &dyn Reader, selector: &Selector) -> Result<u64, StoreError> {
    if selector.everything {
        return reader.live();
    }
    let (mut looked_at, mut found, mut after) = (0, 0, None);
    let mut matching = Matching::new(selector.clone());
    while looked_at < COUNTED_MAX {
        let page = matching.page(reader, after)?;
        found += page.found.len() as u64;
        (after, looked_at) = (page.next, looked_at + page.looked_at);
        if after.is_none() {
            break;
        }
    }
    Ok(found)
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
