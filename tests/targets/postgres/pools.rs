//! Pools of stock clients, over renewals of the certificate that opens their connections.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use daypass_broker::clock::Clock as _;
use daypass_sdk::{CredentialSource, IssueRequest, SourceCertificate};
use daypass_tests::harness::{Agent, eventually, python, run};
use daypass_verify::time::Seconds;
use deadpool_postgres::{Hook, HookError, Manager, Pool};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ground::{Ground, Stands, not_after};

/// How long certificates live here, and connections: a third of that is left after a renewal, less time for a slow machine.
const TTL_S: u32 = 12;
const LIFETIME: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_that_replace_connections_in_time_meet_no_end_over_renewals() {
    let ground = Ground::start(Stands::Beside).await;
    let files = ground.deployment.folder().join("pool");
    let rest = format!(
        "[[credential]]\ntask = \"ledger-db\"\nkind = \"certificate\"\nttl = \"{TTL_S}s\"\nfiles = {{ dir = {files:?} }}\n"
    );
    let agent = Agent::start(&ground.deployment.agent_config("pool", &rest), &[]);
    eventually("the first certificate", || async { files.join("tls.crt").exists() }).await;
    let first_ends = not_after(&files);
    let over = ground.deployment.folder().join("over");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stock/pool.py");
    let (connection, lifetime) = (ground.connection(&files), LIFETIME.as_secs().to_string());
    let arguments = [script.display().to_string(), connection, lifetime, over.display().to_string()];
    let psycopg = tokio::spawn(run(python(), arguments));
    let (used, enough) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let pool = pool(&ground, &files).await;
    let users: Vec<_> = (0..4)
        .map(|_| tokio::spawn(use_pool(pool.clone(), Arc::clone(&used), Arc::clone(&enough))))
        .collect();
    let began = Instant::now();
    while not_after(&files) <= first_ends || ground.deployment.clock.now() < first_ends.plus_millis(2_000) {
        assert!(began.elapsed() < Duration::from_secs(60), "no renewal: {}", agent.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    enough.store(true, Ordering::Relaxed);
    fs::write(&over, "").unwrap();
    for user in users {
        user.await.unwrap().unwrap_or_else(|error| panic!("{error}\n{}", ground.enforcer.said()));
    }
    let psycopg = psycopg.await.unwrap();
    assert_eq!(psycopg.code, Some(0), "{psycopg:?}\n{}\n{}", ground.enforcer.said(), agent.said());
    let numbers: Vec<usize> = psycopg.stdout.split_whitespace().map(|it| it.parse().unwrap()).collect();
    assert!(numbers[0] > 50 && numbers[1] > 4, "statements, connections: {numbers:?}");
    assert!(used.load(Ordering::Relaxed) > 50);
}

/// A pool whose certificates come from the SDK, and whose connections are replaced in time.
async fn pool(ground: &Ground, files: &Path) -> Pool {
    let mut request = IssueRequest::certificate("ledger-db".parse().unwrap());
    request.ttl = Some(Seconds::new(TTL_S));
    let source = CredentialSource::new(ground.deployment.sdk(), request);
    source.credential().await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files.join("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_root_certificates(roots).with_client_cert_resolver(SourceCertificate::new(source));
    let connection = ground.connection(files);
    // What libpq is told of files, this client has from the source.
    let config = connection.split(" sslmode").next().unwrap();
    let config: tokio_postgres::Config = format!("{config} sslmode=require").parse().unwrap();
    let in_time =
        Hook::sync_fn(
            |_, metrics| {
                if metrics.age() < LIFETIME { Ok(()) } else { Err(HookError::message("it is old")) }
            },
        );
    let manager = Manager::new(config, MakeRustlsConnect::new(tls));
    Pool::builder(manager).max_size(4).pre_recycle(in_time).build().unwrap()
}

async fn use_pool(pool: Pool, used: Arc<AtomicUsize>, enough: Arc<AtomicBool>) -> Result<(), String> {
    while !enough.load(Ordering::Relaxed) {
        let client = pool.get().await.map_err(|error| format!("no connection: {error:?}"))?;
        let row = client.query_one("SELECT session_user::text", &[]).await;
        let role: String = row.map_err(|error| format!("a statement failed: {error:?}"))?.get(0);
        assert_eq!(role, super::ground::ROLE);
        used.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
