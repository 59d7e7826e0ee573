//! A client that writes invoices, with a token that is always fresh.
//!
//! With the service of `ledger.rs` beside it, and the broker's address and the proof in the environment
//! (`DAYPASS_BROKER`, `DAYPASS_WEB`, `DAYPASS_CA`, `DAYPASS_CERT`, `DAYPASS_KEY`):
//!
//! ```text
//! cargo run -p daypass-sdk --example nightly -- https://127.0.0.1:PORT
//! ```

use daypass_sdk::{Client, CredentialSource, IssueRequest};
use url::Url;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service: Url = std::env::args().nth(1).ok_or("name the service: `https://HOST:PORT`")?.parse()?;

    let client = Client::from_env()?;
    let source = CredentialSource::new(client.clone(), IssueRequest::token("post-invoices".parse()?));

    let http = client.http_to(&std::fs::read(std::env::var("DAYPASS_CA")?)?)?;
    for region in ["eu/2027-01", "us/2027-01", "asia/2027-01"] {
        let mut request = http.now().post(service.join(&format!("invoices/{region}"))?).build()?;
        source.put_on(&mut request).await?;
        let answer = http.now().execute(request).await?;
        let status = answer.status();
        print!("{region}: {status} {}", answer.text().await?.trim_end());
        println!();
    }
    Ok(())
}
