//! How PostgreSQL shows a client's certificate, and which credential that is.

use std::collections::BTreeSet;

use daypass_verify::ids::CredentialId;
use x509_parser::der_parser::Oid;
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Name;

/// How many bytes of an issuer's name the server shows, as it is built by everybody.
const SHOWN_BYTES_MAX: usize = 63;

/// The names that OpenSSL has for parts of a name.
const PARTS: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// What the broker's CAs are called in `pg_stat_ssl.issuer_dn`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Issuers(BTreeSet<String>);

/// Whether a certificate is by one of these CAs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// By none of them.
    Others,
    /// By one of them, as far as the server shows names: this one is too long for it.
    Perhaps,
    /// By one of them.
    Ours,
}

impl Issuers {
    /// The CAs whose revocation lists these are.
    pub(super) fn of_lists(lists: &[u8]) -> Self {
        let named = |list: &[u8]| {
            let (_, list) = CertificateRevocationList::from_der(list).ok()?;
            shown(list.issuer())
        };
        Self(each(lists).into_iter().filter_map(named).collect())
    }

    #[cfg(test)]
    pub(super) fn named(name: &str) -> Self {
        Self([name.to_owned()].into())
    }

    /// Learns of others; the ones before may have signed what still lives.
    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the certificate that shows this issuer is by one of them.
    pub(super) fn by(&self, issuer_dn: &str) -> By {
        if self.0.contains(issuer_dn) && issuer_dn.len() < SHOWN_BYTES_MAX {
            return By::Ours;
        }
        let cut = |name: &String| name.len() >= SHOWN_BYTES_MAX && name.starts_with(issuer_dn);
        let full = issuer_dn.len() + 4 > SHOWN_BYTES_MAX;
        if full && self.0.iter().any(cut) { By::Perhaps } else { By::Others }
    }
}

/// Each of the revocation lists that come one after another, DER.
pub(super) fn each(mut lists: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Ok((rest, _)) = CertificateRevocationList::from_der(lists) {
        let (list, _) = lists.split_at(lists.len() - rest.len());
        all.push(list);
        lists = rest;
    }
    all
}

/// A name as the server writes it: `/O=example.org/CN=Daypass issuing CA`. None where it has a part that we have no
/// name for.
fn shown(name: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    for part in name.iter_attributes() {
        let label = label(part.attr_type())?;
        text += &format!("/{label}={}", escaped(part.as_str().ok()?));
    }
    Some(text).filter(|text| !text.is_empty())
}

fn label(oid: &Oid<'_>) -> Option<&'static str> {
    let oid = oid.to_id_string();
    PARTS.iter().find(|(known, _)| *known == oid).map(|(_, label)| *label)
}

/// As RFC 2253, section 2.4, writes values.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::new();
    for (at, letter) in value.chars().enumerate() {
        let edge = (at == 0 && matches!(letter, ' ' | '#')) || (at == last && letter == ' ');
        if edge || matches!(letter, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            text.push('\\');
        }
        text.push(letter);
    }
    text
}

/// The credential whose certificate has this serial number, in decimal; none where it is not one of ours.
pub(super) fn credential(serial: &str) -> Option<CredentialId> {
    let number: u128 = serial.parse().ok()?;
    CredentialId::from_bytes(number.to_be_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_the_credential_and_nothing_else_is() {
        let id: CredentialId = "0199f2c1-6d5e-7a3b-9c41-2f8e5d7a9b10".parse().unwrap();
        assert_eq!(credential("2128402412218118811127463506081159952"), None, "another number");
        let serial = u128::from_be_bytes(*id.as_bytes()).to_string();
        assert_eq!(credential(&serial), Some(id));
        for strange in ["", "-1", "1", "0x1", "1e9", "340282366920938463463374607431768211456"] {
            assert_eq!(credential(strange), None, "{strange}");
        }
    }

    #[test]
    fn a_name_counts_only_where_the_server_shows_all_of_it() {
        let long = format!("/O={}/CN=Daypass issuing CA", "x".repeat(60));
        let ours = Issuers(["/O=example.org/CN=Daypass issuing CA".to_owned(), long.clone()].into());
        assert_eq!(ours.by("/O=example.org/CN=Daypass issuing CA"), By::Ours);
        assert_eq!(ours.by(&long[..63]), By::Perhaps);
        for others in
            ["", "/O=example.org", "/O=example.org/CN=Daypass issuing CA 2", "/CN=Daypass issuing CA"]
        {
            assert_eq!(ours.by(others), By::Others, "{others}");
        }
    }

    #[test]
    fn values_are_escaped_as_the_server_does() {
        assert_eq!(escaped("Daypass issuing CA"), "Daypass issuing CA");
        assert_eq!(escaped("#a, b+\"c\\ "), "\\#a\\, b\\+\\\"c\\\\\\ ");
    }
}
