//! `daypass get`: one credential, to standard output or into a folder.

use std::path::Path;

use daypass_sdk::{Client, Credential, Secret, write_private};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::args::Get;
use crate::ask::{self, Form};
use crate::failure::Failure;
use crate::output::Output;
use crate::profile::Profile;

/// Gets it, and puts it where it was wanted. The narrowed and the bound are told on standard error.
pub(crate) async fn run(get: &Get, profile: &Profile, out: &Output) -> Result<(), Failure> {
    let csr = get.csr.as_deref().map(read_csr).transpose()?;
    let form = Form { certificate: get.out.is_some() || csr.is_some(), csr, bearer: get.bearer };
    let mut request = ask::request(get.request.task.clone(), &get.request.scope, form)?;
    request.run.clone_from(&get.run);
    let client = Client::new(profile.config()?)?;
    let credential = client.issue(request).await?;
    if !credential.narrowed.is_empty() {
        eprintln!("narrowed: {}", credential.narrowed.join(", "));
    }
    match &credential.secret {
        Secret::Token { value, kind, bound } if out.is_json() => {
            let token = json!({ "token": value.expose_secret(), "type": kind, "bound": bound });
            out.json(&described(&credential, token))
        }
        Secret::Token { value, bound, .. } => {
            if bound.is_some() && client.holder().is_fresh() {
                eprintln!("{}", binding_note(profile.state()));
            }
            out.line(value.expose_secret())
        }
        Secret::Certificate { key, .. } => {
            let (chain, roots) = credential.secret.certificate_pem().unwrap_or_default();
            let key = key.as_ref().map(|key| key.expose_secret());
            deliver(get.out.as_deref(), &chain, &roots, key, &credential, out)
        }
    }
}

fn deliver(
    directory: Option<&Path>,
    chain: &str,
    roots: &str,
    key: Option<&str>,
    credential: &Credential,
    out: &Output,
) -> Result<(), Failure> {
    let Some(directory) = directory else {
        return match out.is_json() {
            true => out.json(&described(credential, json!({ "certificate": chain, "ca": roots }))),
            false => out.line(chain.trim_end()),
        };
    };
    write_folder(directory, chain, roots, key)?;
    let files = json!({ "out": directory.display().to_string() });
    match out.is_json() {
        true => out.json(&described(credential, files)),
        false => out.line(&format!("{} until {}", directory.display(), credential.granted.expires_at)),
    }
}

/// Each file is whole at every moment. The key goes first: a reader that finds the new key with the old
/// certificate fails at once, and finds both in a moment.
fn write_folder(directory: &Path, chain: &str, roots: &str, key: Option<&str>) -> Result<(), Failure> {
    let shown = directory.display();
    if directory.is_symlink() {
        return Err(Failure::Usage(format!("`{shown}` is a symbolic link: expected a folder")));
    }
    std::fs::create_dir_all(directory)
        .map_err(|error| Failure::Usage(format!("cannot make the folder `{shown}`: {error}")))?;
    if let Some(key) = key {
        write_private(&directory.join("tls.key"), key.as_bytes())?;
    }
    write_private(&directory.join("ca.crt"), roots.as_bytes())?;
    Ok(write_private(&directory.join("tls.crt"), chain.as_bytes())?)
}

fn described(credential: &Credential, mut what: serde_json::Value) -> serde_json::Value {
    let granted = &credential.granted;
    let also = json!({
        "credential_id": credential.id,
        "subject": granted.subject, "task": granted.task,
        "audiences": granted.scope.audiences, "actions": granted.scope.actions, "resources": granted.scope.resources,
        "issued_at": granted.issued_at.to_string(), "expires_at": granted.expires_at.to_string(),
        "renew_after": credential.renew_after.to_string(), "narrowed": credential.narrowed,
        "reach": reach(granted.reach), "request_id": credential.request_id,
        "entry": { "log": credential.receipt.checkpoint.origin, "index": credential.receipt.index },
    });
    if let (Some(what), serde_json::Value::Object(also)) = (what.as_object_mut(), also) {
        what.extend(also);
    }
    what
}

/// The revocation reach as entries name it.
pub(crate) fn reach(reach: daypass_sdk::Reach) -> String {
    reach.as_str_name().trim_start_matches("REACH_").to_ascii_lowercase()
}

/// A token that is bound to a key is only as useful as the key: say where that is.
fn binding_note(state: Option<&Path>) -> String {
    match state {
        Some(state) => format!(
            "bound: to the certificate in `{}`; show it to the target together with the token",
            state.join("holder.pem").display()
        ),
        None => "bound: to a key that ends with this command; name `state`, or `cert` and `key`, in a profile to keep it, or ask with `--bearer` where the task permits that".into(),
    }
}

fn read_csr(path: &Path) -> Result<Vec<u8>, Failure> {
    let shown = path.display();
    let bytes =
        std::fs::read(path).map_err(|error| Failure::Usage(format!("cannot read `{shown}`: {error}")))?;
    if !bytes.starts_with(b"-----") {
        return Ok(bytes);
    }
    let csr = CertificateSigningRequestDer::from_pem_slice(&bytes);
    let csr =
        csr.map_err(|_| Failure::Usage(format!("`{shown}`: expected one PEM block `CERTIFICATE REQUEST`")))?;
    Ok(csr.to_vec())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_holds_what_tls_needs_and_the_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("new/tls");
        for round in ["first", "second"] {
            write_folder(&out, round, "roots", Some("key")).unwrap();
            assert_eq!(std::fs::read_to_string(out.join("tls.crt")).unwrap(), round);
        }
        let key = std::fs::metadata(out.join("tls.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 3);
    }

    #[test]
    fn a_link_is_never_followed() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &link).unwrap();
        assert_eq!(write_folder(&link, "c", "r", None).unwrap_err().exit_code(), 2);
        let victim = directory.path().join("victim");
        std::fs::write(&victim, "untouched").unwrap();
        std::os::unix::fs::symlink(&victim, directory.path().join("tls.key")).unwrap();
        assert!(write_folder(directory.path(), "c", "r", Some("k")).is_err());
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    }

    #[test]
    fn a_request_is_read_as_pem_or_der() {
        let directory = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let (pem, der) = (directory.path().join("pem"), directory.path().join("der"));
        std::fs::write(&pem, csr.pem().unwrap()).unwrap();
        std::fs::write(&der, csr.der()).unwrap();
        assert_eq!(read_csr(&pem).unwrap(), csr.der().to_vec());
        assert_eq!(read_csr(&der).unwrap(), csr.der().to_vec());
        std::fs::write(&pem, "-----BEGIN NOTHING-----\n-----END NOTHING-----\n").unwrap();
        assert!(read_csr(&pem).is_err());
    }
}
