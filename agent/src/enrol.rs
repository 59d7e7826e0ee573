//! `daypass-agent enrol`: one code, one certificate.

use std::io::Read as _;

use daypass_sdk::Error;
use secrecy::SecretString;

use crate::config::Connection;
use crate::node::trade;
use crate::run::Failure;

/// More than any code has.
const CODE_LEN_MAX: u64 = 1024;

/// Trades the code on standard input for a certificate of the node that `connection` names, and keeps it. An agent that runs
/// takes it up by itself. To be called within a tokio runtime.
///
/// # Errors
/// When there is no node or no code, or the code buys nothing.
pub async fn enrol(connection: &Connection) -> Result<u8, Failure> {
    let refused = |what: &str| Failure::Client(Error::Config(what.into()));
    let node = connection.node.as_ref().ok_or_else(|| refused("`[node]` is missing: nothing to enrol"))?;
    let mut text = String::new();
    let read = std::io::stdin().take(CODE_LEN_MAX).read_to_string(&mut text);
    read.map_err(|error| refused(&format!("cannot read the code: {error}")))?;
    let code = text.trim();
    if code.is_empty() {
        return Err(refused("expected the code that `daypass node add` printed on standard input"));
    }
    trade(connection, node, SecretString::from(code)).await.map_err(Failure::Client)?;
    println!("{}", node.certificate().display());
    Ok(0)
}
