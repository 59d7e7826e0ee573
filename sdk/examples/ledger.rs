//! A service that takes invoices from whoever is allowed to write them.
//!
//! With `daypass-broker dev --state dev` beside it:
//!
//! ```text
//! . dev/env
//! cargo run -p daypass-sdk --features axum --example ledger -- dev
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use daypass_sdk::receive::{
    Allowed, Caller, Demand, PossessingPeers, Receiver, ReceiverConfig, Refused, serve, server_config,
};
use http::request::Parts;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Who writes an invoice needs this action, on the region that the path names.
struct WriteInvoices;

impl Demand for WriteInvoices {
    const ACTION: &'static str = "invoice:write";

    fn resource(parts: &Parts) -> Result<Option<daypass_sdk::Resource>, Refused> {
        let region = parts.uri.path().trim_start_matches("/invoices/");
        region.parse().map(Some).map_err(|_| Refused::NotAllowed)
    }
}

async fn write_invoice(Allowed(caller, _): Allowed<WriteInvoices>) -> String {
    format!("written for {} by {}\n", caller.subject, caller.task)
}

async fn who(caller: Caller) -> String {
    format!("{} until {}\n", caller.subject, caller.expires_at)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let state =
        PathBuf::from(std::env::args().nth(1).ok_or("name the state directory of `daypass-broker dev`")?);
    let issuer = std::env::var("DAYPASS_WEB")
        .map_err(|_| "`DAYPASS_WEB` is not set: read `env` in the state directory")?;
    let receiver = Receiver::new(ReceiverConfig::new(
        issuer.parse()?,
        std::fs::read(state.join("server-ca.pem"))?,
        "example.org".parse()?,
        "https://ledger.example.org".parse()?,
    ))?;
    receiver.ready().await?;
    let routes = Router::new()
        .route("/invoices/{*region}", post(write_invoice))
        .route("/who", get(who))
        .layer(receiver.layer());
    let tls = server_config(listener_certificate(&state)?, PossessingPeers::new())?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("https://{}", listener.local_addr()?);
    serve(listener, tls, routes).await?;
    Ok(())
}

/// The service shows what the development broker shows: one certificate for all on this machine.
fn listener_certificate(
    state: &std::path::Path,
) -> Result<Arc<SingleCertAndKey>, Box<dyn std::error::Error>> {
    let chain = CertificateDer::pem_file_iter(state.join("server.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(state.join("server.key"))?;
    Ok(Arc::new(CertifiedKey::new(chain, any_supported_type(&key)?).into()))
}
