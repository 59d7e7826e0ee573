//! The certificate that the development issuer's listener shows, and the wrong ones that it can show instead.

use std::sync::Arc;

use daypass_verify::time::UnixMs;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use rustls::ServerConfig;

use super::super::DevError;
use super::super::authority::{Authority, days, leaf_params};
use super::behaviour::Connection;

const NAME: &str = "Daypass development issuer";
const LEAF_LIFE_DAYS: i64 = 90;

pub(super) struct Tls {
    authority: Authority,
    honest: Arc<ServerConfig>,
}

impl Tls {
    pub(super) fn new(authority: Authority, now: UnixMs) -> Result<Self, DevError> {
        let honest = config(&authority, "localhost", now, now.plus_millis(days(LEAF_LIFE_DAYS)))?;
        Ok(Self { authority, honest })
    }

    pub(super) fn authority(state: Option<&std::path::Path>, now: UnixMs) -> Result<Authority, DevError> {
        match state {
            Some(directory) => Authority::load_or_new(&directory.join("issuer-ca.json"), NAME, None, now),
            None => Authority::new(NAME, None, now),
        }
    }

    pub(super) fn root(&self) -> &rustls_pki_types::CertificateDer<'static> {
        self.authority.root()
    }

    /// What to show at `now` on a connection with this fault.
    pub(super) fn config(&self, fault: Connection, now: UnixMs) -> Result<Arc<ServerConfig>, DevError> {
        let end = now.plus_millis(days(1));
        match fault {
            Connection::ExpiredCertificate => {
                config(&self.authority, "localhost", now, now.plus_millis(-days(1) / 2))
            }
            Connection::OtherHost => config(&self.authority, "elsewhere.example", now, end),
            Connection::OtherCa => config(&Authority::new(NAME, None, now)?, "localhost", now, end),
            _ => Ok(Arc::clone(&self.honest)),
        }
    }
}

/// A listener's TLS under a new certificate for `host`; `localhost` stands for 127.0.0.1 as well.
fn config(
    authority: &Authority,
    host: &str,
    now: UnixMs,
    not_after: UnixMs,
) -> Result<Arc<ServerConfig>, DevError> {
    let mut params = leaf_params(now.plus_millis(-days(1)), not_after)?;
    params.subject_alt_names = vec![SanType::DnsName(host.try_into()?)];
    if host == "localhost" {
        params.subject_alt_names.push(SanType::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()));
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let (certificate, key) = authority.issue(&params)?.into_key();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(Arc::new(config))
}
