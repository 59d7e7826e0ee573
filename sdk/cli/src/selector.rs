//! What an order is about, as it is typed.

use daypass_sdk::{Selected, Selector};

/// All of something: `identity=NAME` and so on, or `everything`.
pub(crate) fn all(text: &str) -> Result<Selector, String> {
    let (kind, name) = text.split_once('=').unwrap_or((text, ""));
    let name = name.to_owned();
    let what = match kind {
        "everything" if !text.contains('=') => Selected::Everything(true),
        _ if name.is_empty() => return Err(expected(text)),
        "identity" => Selected::Identity(name),
        "instance" => Selected::Instance(name),
        "task" => Selected::Task(name),
        "target" => Selected::Target(name),
        "supplier" => Selected::Supplier(name),
        "issuer" => Selected::Issuer(name),
        "key" => Selected::KeyId(name),
        _ => return Err(expected(text)),
    };
    Ok(Selector { what: Some(what), issued_before: None })
}

fn expected(text: &str) -> String {
    format!(
        "`{text}` selects nothing: expected `identity=NAME`, and so with instance, task, target, supplier, issuer or key, or `everything`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_about_one_thing_or_everything() {
        assert_eq!(all("everything").unwrap().what, Some(Selected::Everything(true)));
        let named = all("instance=run=1").unwrap();
        assert_eq!(named.what, Some(Selected::Instance("run=1".into())));
        for bad in ["", "everything=a", "identity=", "identity", "role=a", "=a"] {
            assert!(all(bad).is_err(), "{bad}");
        }
    }
}
