//! Our own lints: the finished bytes are read again, and must be what was meant, before anything is recorded.

use daypass_evidence::entry::{Profile, Reach};
use daypass_verify::certificate::is_node_usage;
use daypass_verify::csr::CsrKey;
use daypass_verify::task::TASK_EXTENSION_OID;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::asn1_rs::Oid;
use x509_parser::prelude::{X509Certificate, X509Version};

use super::DraftError;
use super::certificate::NO_REV_AVAIL_OID;
use super::key::Authority;
use crate::decision::Grant;

type Lint = Result<(), DraftError>;

pub(super) fn check(
    parsed: &X509Certificate<'_>,
    grant: &Grant,
    authority: &Authority,
    holder: &CsrKey,
    task: &str,
) -> Lint {
    check_fields(parsed, grant, authority, holder)?;
    check_subject(parsed, grant)?;
    check_usages(parsed, grant)?;
    check_key_ids(parsed, authority)?;
    check_extensions(parsed, grant, task)
}

fn expect(holds: bool, rule: &'static str) -> Lint {
    if holds { Ok(()) } else { Err(DraftError::Lint(rule)) }
}

fn check_fields(parsed: &X509Certificate<'_>, grant: &Grant, authority: &Authority, holder: &CsrKey) -> Lint {
    let validity = parsed.validity();
    let not_before = validity.not_before.timestamp() == grant.not_before().seconds();
    expect(parsed.version() == X509Version::V3, "version 3")?;
    expect(parsed.raw_serial() == grant.id.as_bytes(), "the credential's id as its serial number")?;
    expect(parsed.issuer().as_raw() == authority.name_der, "the CA's subject as its issuer, byte for byte")?;
    expect(not_before, "`notBefore` as it was granted")?;
    expect(validity.not_after.timestamp() == grant.expires_at().seconds(), "`notAfter` as it was granted")?;
    expect(grant.expires_at() <= authority.expires_at, "an end before that of the CA's own certificate")?;
    expect(parsed.public_key().raw == holder.spki_der(), "the holder's key, byte for byte")
}

fn check_subject(parsed: &X509Certificate<'_>, grant: &Grant) -> Lint {
    let mut names = parsed.subject().iter_common_name().map(|it| it.as_str().ok());
    let (first, second) = (names.next().flatten(), names.next());
    let empty = parsed.subject().iter().next().is_none();
    match grant.profile() {
        Profile::CommonName => {
            let fits = first
                .is_some_and(|it| (1..=64).contains(&it.len()) && Some(it) == grant.common_name.as_deref());
            expect(fits && second.is_none(), "one common name of 1 to 64 bytes, the task's")?;
        }
        _ => expect(empty, "no subject name")?,
    }
    let found = parsed.subject_alternative_name().ok().flatten();
    let found = found.ok_or(DraftError::Lint("alternative names"))?;
    expect(found.critical == empty, "critical alternative names where the subject is empty, and only there")?;
    let mut wanted = vec![GeneralName::URI(grant.subject.as_str())];
    wanted.extend(grant.dns_names.iter().map(|name| GeneralName::DNSName(name)));
    expect(found.value.general_names == wanted, "one URI, the SPIFFE ID, and the task's DNS names")
}

fn check_usages(parsed: &X509Certificate<'_>, grant: &Grant) -> Lint {
    const DIGITAL_SIGNATURE: u16 = 1;
    let usage = parsed.key_usage().ok().flatten();
    expect(
        usage.is_some_and(|it| it.critical && it.value.flags == DIGITAL_SIGNATURE),
        "the critical key usage `digitalSignature` alone",
    )?;
    let extended = parsed.extended_key_usage().ok().flatten();
    let fits = extended.is_some_and(|it| {
        if grant.profile() == Profile::Node {
            return is_node_usage(it.value);
        }
        let others = it.value.any
            || it.value.code_signing
            || it.value.email_protection
            || it.value.time_stamping
            || it.value.ocsp_signing
            || !it.value.other.is_empty();
        let server = it.value.server_auth == (grant.profile() != Profile::CommonName);
        it.value.client_auth && server && !others
    });
    expect(fits, "the extended key usages of the profile alone")?;
    let constraints = parsed.basic_constraints().ok().flatten();
    expect(constraints.is_some_and(|it| !it.value.ca), "basic constraints that say it is no CA")
}

fn check_key_ids(parsed: &X509Certificate<'_>, authority: &Authority) -> Lint {
    let has_subject_key = parsed
        .iter_extensions()
        .any(|it| matches!(it.parsed_extension(), ParsedExtension::SubjectKeyIdentifier(_)));
    expect(has_subject_key, "a subject key identifier")?;
    let names_authority = parsed.iter_extensions().any(|it| match it.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            id.key_identifier.as_ref().is_some_and(|id| id.0 == authority.key_id)
        }
        _ => false,
    });
    expect(names_authority, "the CA's key identifier")
}

fn check_extensions(parsed: &X509Certificate<'_>, grant: &Grant, task: &str) -> Lint {
    expect(parsed.extensions_map().is_ok(), "each extension once")?;
    let found = extension(parsed, TASK_EXTENSION_OID);
    let fits = found.is_some_and(|it| !it.critical && it.value == task.as_bytes());
    expect(fits, "the task, not critical")?;
    let unrevocable = extension(parsed, NO_REV_AVAIL_OID).is_some();
    expect(unrevocable == (grant.reach() != Reach::Crl), "`noRevAvail` unless a CRL reaches the target")
}

fn extension<'a>(parsed: &'a X509Certificate<'a>, oid: &[u64]) -> Option<&'a X509Extension<'a>> {
    let wanted = Oid::from(oid).ok()?;
    parsed.iter_extensions().find(|it| it.oid == wanted)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
        SerialNumber, SubjectPublicKeyInfo,
    };
    use x509_parser::prelude::FromDer as _;

    use super::super::SigningKey;
    use super::super::certificate::params;
    use super::*;
    use crate::decision::decide;
    use crate::fixture::{self, NOW, WORLD};

    type Spoil = fn(&mut CertificateParams);

    fn linted(task: &str, spoil: Spoil) -> Result<(), String> {
        let bundle = fixture::bundle(&fixture::declared(), fixture::PERMIT_ALL);
        let principal = fixture::bound_principal("job:nightly", &bundle);
        let request = fixture::certificate_request(task);
        let grant = decide(&principal, &request, &fixture::state(&bundle), fixture::id(), NOW).unwrap();
        let key = SigningKey::authority(WORLD.ca_id.clone(), &WORLD.ca.der).unwrap();
        let (authority, holder) = (key.as_authority().unwrap(), grant.csr_key.as_ref().unwrap());
        let mut params = params(&grant, "{}").unwrap();
        spoil(&mut params);
        let public = SubjectPublicKeyInfo::from_der(holder.spki_der()).unwrap();
        let unsigned = params.signed_by(&public, &authority.issuer).unwrap();
        let (_, parsed) = X509Certificate::from_der(unsigned.der()).unwrap();
        check(&parsed, &grant, authority, holder, "{}").map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_with_one_thing_spoiled_fails_its_lint() {
        assert_eq!((linted("mesh", |_| {}), linted("db", |_| {})), (Ok(()), Ok(())));
        assert!(linted("mesh", |it| it.serial_number = Some(SerialNumber::from_slice(&[1; 16]))).is_err());
        assert!(linted("mesh", |it| it.serial_number = None).is_err());
        let spoils: [(&str, Spoil); 14] = [
            ("early", |it| it.not_before -= time::Duration::SECOND),
            ("late", |it| it.not_after += time::Duration::SECOND),
            ("named", |it| it.distinguished_name.push(DnType::CommonName, "admin")),
            ("second URI", |it| it.subject_alt_names.push(fixture::uri("spiffe://example.org/x"))),
            ("no URI", |it| drop(it.subject_alt_names.remove(0))),
            ("other name", |it| it.subject_alt_names.push(SanType::DnsName("x.org".try_into().unwrap()))),
            ("a CA", |it| it.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
            ("no constraints", |it| it.is_ca = IsCa::NoCa),
            ("signs certificates", |it| it.key_usages.push(KeyUsagePurpose::KeyCertSign)),
            ("no usage", |it| it.key_usages.clear()),
            ("signs code", |it| it.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning)),
            ("no authority key id", |it| it.use_authority_key_identifier_extension = false),
            ("no task", |it| drop(it.custom_extensions.remove(0))),
            ("critical task", |it| it.custom_extensions[0].set_criticality(true)),
        ];
        for (what, spoil) in spoils {
            assert!(linted("mesh", spoil).is_err(), "{what}");
        }
        assert!(linted("mesh", |it| drop(it.custom_extensions.pop())).is_err(), "no noRevAvail");
        let none = |it: &mut CertificateParams| {
            it.custom_extensions.push(CustomExtension::from_oid_content(NO_REV_AVAIL_OID, vec![5, 0]));
        };
        assert!(linted("db", none).is_err(), "noRevAvail beside a CRL");
        assert!(linted("db", |it| it.distinguished_name = rcgen::DistinguishedName::new()).is_err());
        assert!(linted("db", |it| it.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth)).is_err());
    }
}
