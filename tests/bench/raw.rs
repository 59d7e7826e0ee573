//! What the parts cost alone, on the client's core, in the same run; and what the broker could do at most if it did
//! nothing else.

use std::fs::File;
use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use daypass_broker::dev::caller::client_config;
use daypass_verify::csr::key_of_csr;
use daypass_verify::jose::UnverifiedToken;
use daypass_verify::jwks::KeySet;
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use rusqlite::{Connection, params};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::Fault;
use crate::broker::Deployment;
use crate::case::{rs256_token, workload};
use crate::client::{self, framed};

/// Microseconds of one core.
pub(crate) struct Raw {
    sign: f64,
    verify: f64,
    rs256: f64,
    csr: f64,
    row: f64,
    sync_cpu: f64,
    sync: f64,
    rpc: f64,
}

pub(crate) async fn measure(deployment: &Deployment) -> Result<Raw, Fault> {
    let random = SystemRandom::new();
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| "no key")?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random)
        .map_err(|error| error.to_string())?;
    let message = [7_u8; 700];
    let signature = pair.sign(&random, &message).map_err(|_| "no signature")?;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref().to_vec());
    let token = rs256_token(deployment)?;
    let (keys, _) = KeySet::parse(deployment.rs256.jwks().to_string().as_bytes())?;
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate()?)?.der().to_vec();
    let (sync, sync_cpu) = sync(deployment)?;
    Ok(Raw {
        sign: each(5_000, || black_box(pair.sign(&random, &message)).is_ok()),
        verify: each(3_000, || black_box(public.verify(&message, signature.as_ref())).is_ok()),
        rs256: each(5_000, || {
            let parsed = UnverifiedToken::parse(&token).ok();
            let signed = parsed.and_then(|token| keys.key_for(&token).ok().map(|key| token.verify(key)));
            black_box(signed).is_some()
        }),
        csr: each(3_000, || black_box(key_of_csr(&csr)).is_ok()),
        row: row(deployment)?,
        sync,
        sync_cpu,
        rpc: empty_rpc(deployment).await?,
    })
}

fn each(count: u32, mut act: impl FnMut() -> bool) -> f64 {
    let began = Instant::now();
    let done = (0..count).filter(|_| act()).count();
    assert_eq!(done, count as usize, "a part that fails costs nothing: it cannot be measured");
    began.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

/// A row of the size of an entry, in transactions of 64, without the sync.
fn row(deployment: &Deployment) -> Result<f64, Fault> {
    let connection = Connection::open(deployment.folder().join("raw.db"))?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0;
         CREATE TABLE entries (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, bytes BLOB NOT NULL) STRICT;",
    )?;
    let bytes = [7_u8; 1_200];
    let mut next = 0_i64;
    let began = Instant::now();
    for _ in 0..200 {
        let transaction = connection.unchecked_transaction()?;
        for _ in 0..64 {
            next += 1;
            transaction.prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3)")?.execute(params![
                next,
                &bytes[..32],
                &bytes[..]
            ])?;
        }
        transaction.commit()?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / (200.0 * 64.0))
}

/// One fdatasync of 64 rows' bytes: how long it takes, and what it costs the core.
fn sync(deployment: &Deployment) -> Result<(f64, f64), Fault> {
    let mut file = File::create(deployment.folder().join("raw.bin"))?;
    let own = crate::process::Process(std::process::id());
    let (began, before) = (Instant::now(), own.used()?);
    for _ in 0..200 {
        file.write_all(&[7; 64 * 1_300])?;
        file.sync_data()?;
    }
    let cpu = own.used()?.cpu_us - before.cpu_us;
    Ok((began.elapsed().as_secs_f64() * 1e6 / 200.0, cpu / 200.0))
}

/// What the broker's core spends on a call that does nothing: the health check, over the same listener.
async fn empty_rpc(deployment: &Deployment) -> Result<f64, Fault> {
    const CALLERS: usize = 32;
    const CALLS: usize = 300;
    let tls = Arc::new(client_config(&deployment.ca, Some(&workload(deployment)?))?);
    let connection = client::Connection::open(deployment.broker.api, tls).await?;
    let message = framed(&HealthCheckRequest { service: String::new() });
    let before = deployment.broker.process.used()?;
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (mut connection, message) = (connection.clone(), message.clone());
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    let _: HealthCheckResponse =
                        connection.call("/grpc.health.v1.Health/Check", &message, None).await?;
                }
                Ok::<_, Fault>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    Ok((deployment.broker.process.used()?.cpu_us - before.cpu_us) / (CALLERS * CALLS) as f64)
}

impl Raw {
    /// What the parts that a case cannot do without leave of a second: the call, the signature, the row, its share of
    /// the sync, and the check of its proof or request.
    pub(crate) fn ceiling(&self, case: &str, syncs: f64) -> f64 {
        1e6 / self.sum(case, syncs)
    }

    fn sum(&self, case: &str, syncs: f64) -> f64 {
        let common = self.rpc + self.sign + self.row + self.sync_cpu * syncs;
        match case {
            "jwt-oidc" => common + self.rs256,
            "x509-csr" => common + self.csr,
            _ => common,
        }
    }

    pub(crate) fn print(&self) {
        println!("raw costs, microseconds of one core:");
        for (name, cost) in [
            ("ES256 sign", self.sign),
            ("ES256 verify", self.verify),
            ("RS256 proof: parse, verify", self.rs256),
            ("CSR: parse, verify", self.csr),
            ("row of an entry", self.row),
            ("sync of 64 rows, CPU", self.sync_cpu),
            ("sync of 64 rows, elapsed", self.sync),
            ("empty RPC over mTLS", self.rpc),
        ] {
            println!("  {name:<28} {cost:>8.1}");
        }
        println!(
            "ceiling = 1 s / (empty RPC + sign + row + CPU of its share of syncs + RS256 proof or CSR)\n"
        );
    }
}
