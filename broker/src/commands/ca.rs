//! `ca`: an issuing CA that the organisation's own CA signs.

use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use daypass_broker::config::Config;
use daypass_broker::serve::open_keys;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Failure, settings};

pub(super) async fn request(config: &Path, out: &Path) -> Result<(), Failure> {
    let settings = settings(&Config::read(config)?)?;
    let failed = |error| Failure::File(out.display().to_string(), error);
    let (key, csr) = open_keys(&settings)?.request_ca().await?;
    let mut file = std::fs::File::create_new(out).map_err(failed)?;
    file.write_all(pem(&csr).as_bytes()).map_err(failed)?;
    println!("request  {} for key {}", out.display(), key.key);
    println!("waits    until {}; its key lies sealed in the store", key.publish_until_ms);
    println!("next     have it signed as a CA with path length 0, and run `daypass-broker ca install`");
    Ok(())
}

pub(super) async fn install(config: &Path, chain: &Path, dry_run: bool) -> Result<(), Failure> {
    let name = || chain.display().to_string();
    let ders: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(chain).and_then(|certificates| certificates.collect());
    let ders = ders.map_err(|error| Failure::File(name(), std::io::Error::other(error)))?;
    let settings = settings(&Config::read(config)?)?;
    let key = open_keys(&settings)?.install_ca(&ders, dry_run).await?;
    println!("key        {}", key.key);
    println!("signs      {} to {}", key.sign_from_ms, key.sign_until_ms);
    println!("until then the CA before it signs; verifiers must know the new root by then");
    if dry_run {
        println!("nothing was written");
    }
    Ok(())
}

fn pem(der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut lines = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for at in (0..text.len()).step_by(64) {
        lines.push_str(text.get(at..(at + 64).min(text.len())).unwrap_or_default());
        lines.push('\n');
    }
    lines.push_str("-----END CERTIFICATE REQUEST-----\n");
    lines
}
