//! A service of one's own, as the SDK's layer makes one: it takes tokens of a deployment.

use std::sync::Arc;

use axum::Router;
use daypass_sdk::receive::{PossessingPeers, Receiver, ReceiverConfig, serve, server_config};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;

use super::{Deployment, TRUST_DOMAIN};

impl Deployment {
    /// Serves `routes` to whoever has a token for `audience`; where it is, without a path. It shows the certificate of the
    /// broker's own listener.
    pub async fn receiving(&self, audience: &str, routes: Router) -> String {
        let issuer = self.settings.issuer.as_str().parse().unwrap();
        let ca = std::fs::read(&self.listener_ca).unwrap();
        let config =
            ReceiverConfig::new(issuer, ca, TRUST_DOMAIN.parse().unwrap(), audience.parse().unwrap());
        let receiver = Receiver::new(config).unwrap();
        receiver.ready().await.unwrap();
        let at = &self.settings.api;
        let chain = CertificateDer::pem_file_iter(&at.certificate).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(&at.key).unwrap();
        let shown: SingleCertAndKey = CertifiedKey::new(chain, any_supported_type(&key).unwrap()).into();
        let tls = server_config(Arc::new(shown), PossessingPeers::new()).unwrap();
        let at = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("https://{}", at.local_addr().unwrap());
        tokio::spawn(serve(at, tls, routes.layer(receiver.layer())));
        url
    }
}
