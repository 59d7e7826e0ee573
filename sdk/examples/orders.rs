//! A service that bills one order after the other, and says what it is told: what becomes of it when its credentials are
//! revoked, or it is suspended. docs/afternoon.md starts it.

use std::time::Duration;

use daypass_sdk::{Client, CredentialSource, IssueRequest};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::from_env()?;
    let source = CredentialSource::new(client.clone(), IssueRequest::token("bill-orders".parse()?));
    println!("{}", source.credential().await?.id);

    let http = client.http_to(&std::fs::read(std::env::var("DAYPASS_CA")?)?)?;
    let url = std::env::var("LEDGER")? + "/invoices/eu/de";
    loop {
        let mut request = http.now().post(&url).build()?;
        match source.put_on(&mut request).await {
            Ok(()) => println!("{}", http.now().execute(request).await?.status()),
            Err(error) => println!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
