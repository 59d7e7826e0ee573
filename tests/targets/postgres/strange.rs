//! Sessions by certificates that are not for this server: of our CA and for another target, of another CA, and of none.

use std::fs;

use daypass_broker::dev::organisation::sample;
use daypass_core::bundle::SourceFile;
use daypass_evidence::entry::{Body, Observed};
use daypass_tests::harness::{Agent, edited};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::ground::{Ground, ROLE, Stands};

/// The sample organisation with a task for another database, under the same role.
fn with_another_database() -> Vec<SourceFile> {
    let mut files = sample();
    let mut edit = |name: &str, edit: &dyn Fn(&str) -> String| edited(&mut files, name, edit);
    let task = "\n[task.other-db]\ntargets = [\"web-db\"]\nkinds = [\"common-name\"]\ncommon_name = \"billing_nightly\"\n\
                ttl = \"10m\"\nttl_max = \"30m\"\n";
    edit("tasks.toml", &|text| format!("{text}{task}"));
    edit("identities/billing.toml", &|text| text.replace("\"ledger-db\"", "\"ledger-db\", \"other-db\""));
    edit("permits.cedar", &|text| {
        text.replace("Task::\"ledger-db\"", "Task::\"ledger-db\", Task::\"other-db\"")
    });
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_for_another_target_is_ended_and_what_is_not_of_our_ca_is_left_alone() {
    let ground = Ground::start_with(with_another_database(), Stands::Beside).await;
    // Another CA that the server trusts, with the serial number of a credential of ours that is revoked.
    let revoked = ground.certificate("revoked", "10m").await;
    let (index, id) = ground.issued(&revoked).await;
    let by_others = ground.deployment.folder().join("by-others");
    let authority = by_another_ca(&by_others, &id, &revoked);
    ground.trust_also(&authority).await;
    let theirs = ground.session(&by_others).await;
    ground.revoke(&id, index).await;

    let stray = ground.certificate_for("other-db", "stray", "10m").await;
    let (_, stray_id) = ground.issued(&stray).await;
    ground.session(&stray).await.ended(&ground).await;
    let unseen = ground.deployment.entry("what nobody issued for it", |entry| match &entry.body {
        Body::AccessObserved(it) if it.what == Observed::Unseen => Some((**it).clone()),
        _ => None,
    });
    let (_, unseen) = unseen.await;
    assert!(unseen.credential.is_none() && unseen.detail.unwrap().contains(&stray_id));
    assert_eq!(ground.sessions(), 1, "a session by another CA was ended:\n{}", ground.enforcer.said());
    // An agent that begins says at once how many it leaves alone: this one.
    let again = Agent::start(&ground.deployment.folder().join("enforcer.toml"), &[]);
    again.says("1 of other CAs").await;
    drop(theirs);
}

/// A certificate of the same role and serial number by a CA of somebody else; that CA, PEM.
fn by_another_ca(folder: &std::path::Path, id: &str, like: &std::path::Path) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "example.org");
    params.distinguished_name.push(DnType::CommonName, "Another CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.distinguished_name.push(DnType::CommonName, ROLE);
    let id: daypass_verify::ids::CredentialId = id.parse().unwrap();
    leaf.serial_number = Some(rcgen::SerialNumber::from_slice(id.as_bytes()));
    let key = KeyPair::generate().unwrap();
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("tls.crt"), leaf.signed_by(&key, &authority).unwrap().pem()).unwrap();
    let file = folder.join("tls.key");
    fs::write(&file, key.serialize_pem()).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::copy(like.join("ca.crt"), folder.join("ca.crt")).unwrap();
    authority.pem()
}
