//! Entries that left the database: read, proven and verified as if they had not.

use std::path::PathBuf;
use std::time::Duration;

use daypass_broker::dev::organisation::sample;
use daypass_broker::log::Attached;
use daypass_broker::seal::SealSettings;
use daypass_broker::store::StoreAt;
use daypass_evidence::entry::{Alarm, AlarmState, NewEntry};
use daypass_evidence::receipt::verify_receipt;
use daypass_evidence::tree::leaf_hash;
use daypass_proto::v1 as pb;
use daypass_proto::v1::get_proof_request::Of;
use daypass_tests::harness::postgres::{Database, OWNER, Postgres, SEALER, SERVICE};
use daypass_tests::harness::{Deployment, Output, eventually, issue, program, run, task};

/// A deployment that seals 256 entries as soon as there are so many.
async fn sealing() -> Deployment {
    let mut deployment = Deployment::stopped(sample()).await;
    seal_in_folder(&mut deployment);
    deployment.resume().await.unwrap();
    deployment
}

fn seal_in_folder(deployment: &mut Deployment) {
    let folder = deployment.folder().join("sealed");
    deployment.settings.store = deployment.settings.store.clone().sealed_in(Some(&folder));
    deployment.settings.seal = SealSettings { entries: 256, every: Duration::from_millis(50) };
}

async fn grow(deployment: &Deployment, entries: usize) {
    let desk = &deployment.broker().desk;
    let entry = || NewEntry {
        id: desk.ids.draw(desk.clock.now()).unwrap(),
        request: None,
        by: None,
        body: Alarm {
            code: "A_TEST".into(),
            state: AlarmState::Raised,
            raised: None,
            detail: Some("a leaf among others".into()),
        }
        .into(),
    };
    desk.log.append((0..entries).map(|_| entry()).collect(), Attached::default()).await.unwrap();
}

async fn sealed(deployment: &Deployment, until: u64) {
    let readers = &deployment.broker().readers;
    let is_sealed = || async { readers.run(|reader| reader.sealed_until()).await.unwrap() >= until };
    eventually("entries are sealed", is_sealed).await;
}

fn bundle(deployment: &Deployment) -> PathBuf {
    let shards = std::fs::read_dir(deployment.folder().join("sealed")).unwrap();
    shards.last().unwrap().unwrap().path().join("tile/entries/000")
}

async fn daypass_broker(arguments: &[&str]) -> Output {
    run(program("daypass-broker"), arguments.iter().copied()).await
}

async fn verify(deployment: &Deployment, more: &[&str]) -> Output {
    let key = deployment.log_key.to_string();
    let store = deployment.settings.store.file().unwrap().to_str().unwrap();
    let arguments = ["verify", "--store", store, "--key", &key];
    run(program("daypass-broker"), arguments.into_iter().chain(more.iter().copied())).await
}

#[tokio::test]
async fn sealed_entries_are_listed_and_proven_over_the_api_and_at_the_next_start() {
    listed_and_proven(sealing().await).await;
}

#[tokio::test]
async fn entries_sealed_from_postgres_are_listed_and_proven_too() {
    let database = Postgres::shared().any_database();
    let mut deployment = Deployment::stopped_in(database.at()).await;
    seal_in_folder(&mut deployment);
    deployment.resume().await.unwrap();
    listed_and_proven(deployment).await;
    eventually("what is sealed left the database", || async { unsealed(&database, 512) == 0 }).await;
}

#[tokio::test]
async fn a_log_recovered_in_postgres_seals_its_own_entries_and_reads_those_of_the_one_before() {
    let database = Postgres::shared().any_database();
    let mut deployment = Deployment::stopped_in(database.at()).await;
    seal_in_folder(&mut deployment);
    deployment.resume().await.unwrap();
    grow(&deployment, 300).await;
    sealed(&deployment, 256).await;
    deployment.stop().await;
    std::fs::remove_file(&deployment.settings.anchor).unwrap();
    let config = deployment.config_file();
    let text = std::fs::read_to_string(&config).unwrap();
    let sealer = format!("sealer_url = \"{}\"\nanchor =", database.url(SEALER));
    std::fs::write(&config, text.replace("anchor =", &sealer)).unwrap();
    let (config, owner) = (config.to_str().unwrap(), database.url(OWNER));
    let recovered = daypass_broker(&["recover", "--config", config, "--owner", &owner]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    deployment.resume().await.unwrap();
    grow(&deployment, 300).await;
    sealed(&deployment, 256).await;
    eventually("what is sealed left the database", || async { unsealed(&database, 256) == 0 }).await;
    deployment.stop().await;
    let both = daypass_broker(&["verify", "--config", config]).await;
    assert!(both.code == Some(0) && both.stdout.contains("the newer log follows"), "{both:?}");
}

/// How many entries below `until` lie in the database and are not folded.
fn unsealed(database: &Database<'_>, until: u64) -> u64 {
    let sql = format!(
        "SELECT count(*) FROM daypass.entries LEFT JOIN daypass.folds f USING (idx) WHERE f.idx IS NULL AND idx < {until}"
    );
    database.query(&sql)[0][0].parse().unwrap()
}

async fn listed_and_proven(mut deployment: Deployment) {
    let first = issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    let before = deployment.entries().await;
    grow(&deployment, 600).await;
    sealed(&deployment, 512).await;
    for round in ["sealed while it served", "started on sealed entries"] {
        assert_eq!(deployment.entries().await[..before.len()], before, "{round}");
        let operator = deployment.operator().await;
        let wanted = pb::ListEntriesRequest {
            credential_id: first.credential_id.clone(),
            limit: 1,
            ..Default::default()
        };
        let request = operator.request(wanted).unwrap();
        let mut listed = operator.evidence().list_entries(request).await.unwrap().into_inner();
        let found = listed.message().await.unwrap().unwrap();
        let index = found.r#ref.unwrap().index;
        assert!(index < 256, "{round}");
        let of = Some(Of::Index(index));
        let request = operator.request(pb::GetProofRequest { of, ..Default::default() }).unwrap();
        let proof = operator.evidence().get_proof(request).await.unwrap().into_inner();
        let path: Vec<[u8; 32]> = proof.hashes.iter().map(|hash| hash.as_ref().try_into().unwrap()).collect();
        verify_receipt(leaf_hash(&found.entry), index, &proof.checkpoint, &path, &deployment.log_key)
            .unwrap();
        issue(&deployment.service().await, task("post-invoices")).await.unwrap();
        deployment.stop().await;
        deployment.resume().await.unwrap();
    }
}

#[tokio::test]
async fn a_sealed_log_is_verified_offline_with_its_files() {
    let mut deployment = sealing().await;
    grow(&deployment, 300).await;
    sealed(&deployment, 256).await;
    deployment.stop().await;
    let folder = deployment.folder().join("sealed");
    let with = ["--sealed", folder.to_str().unwrap()];
    let clean = verify(&deployment, &with).await;
    assert!(clean.stdout.contains("verified: no finding"), "{clean:?}");
    let without = verify(&deployment, &[]).await;
    assert!(
        without.code != Some(0) && without.stderr.contains("entries below 256 are sealed"),
        "{without:?}"
    );

    let path = bundle(&deployment);
    let mut content = std::fs::read(&path).unwrap();
    let at = content.windows(4).position(|window| window == b"leaf").unwrap();
    content[at] ^= 1;
    std::fs::write(&path, content).unwrap();
    let changed = verify(&deployment, &with).await;
    assert!(changed.code != Some(0) && changed.stdout.contains("LEAF_MISMATCH"), "{changed:?}");
    assert!(deployment.resume().await.is_err(), "nothing is signed on it");
}

#[tokio::test]
async fn a_broker_without_the_folder_of_sealed_entries_does_not_start() {
    let mut deployment = sealing().await;
    grow(&deployment, 300).await;
    sealed(&deployment, 256).await;
    deployment.stop().await;
    let StoreAt::Sealed { at, .. } = deployment.settings.store.clone() else { panic!("it seals") };
    deployment.settings.store = *at;
    let refused = deployment.resume().await.unwrap_err().to_string();
    assert!(refused.contains("entries below 256 are sealed"), "{refused}");
}

#[tokio::test]
async fn a_backup_holds_the_sealed_entries_too_and_can_be_recovered_from() {
    let mut deployment = sealing().await;
    grow(&deployment, 600).await;
    sealed(&deployment, 512).await;
    let copy = deployment.folder().join("copy");
    let (config, to) = (deployment.config_file(), copy.to_str().unwrap().to_owned());
    let config = config.to_str().unwrap();
    let backup = daypass_broker(&["backup", "--config", config, "--to", &to]).await;
    assert!(backup.code == Some(0) && backup.stdout.contains("512 entries that are sealed"), "{backup:?}");
    let folder = format!("{to}.sealed");
    let verified = daypass_broker(&["verify", "--store", &to, "--sealed", &folder]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let again = daypass_broker(&["backup", "--config", config, "--to", &to]).await;
    assert!(again.code != Some(0) && copy.exists(), "{again:?}");

    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    deployment.stop().await;
    let live = deployment.folder().join("sealed");
    std::fs::remove_dir_all(&live).unwrap();
    std::fs::rename(&folder, &live).unwrap();
    std::fs::copy(&copy, deployment.store()).unwrap();
    let recovered = daypass_broker(&["recover", "--config", config]).await;
    assert_eq!(recovered.code, Some(0), "{recovered:?}");
    deployment.resume().await.unwrap();
    issue(&deployment.service().await, task("post-invoices")).await.unwrap();
    grow(&deployment, 300).await;
    sealed(&deployment, 256).await;
    deployment.stop().await;
    let both = daypass_broker(&["verify", "--config", config]).await;
    assert_eq!(both.code, Some(0), "the new log and the one before it, each with its files: {both:?}");
    assert!(both.stdout.contains("the newer log follows"), "{both:?}");
}

#[tokio::test]
async fn a_sealed_store_moves_to_postgres_with_its_files() {
    let mut deployment = sealing().await;
    grow(&deployment, 300).await;
    sealed(&deployment, 256).await;
    deployment.stop().await;
    let before = deployment.settings.store.reader().unwrap().rows(0, 9_999).unwrap();
    let old = deployment.config_file();
    let database = Postgres::shared().any_database();
    let text = std::fs::read_to_string(&old).unwrap();
    let path = format!("path = {:?}", deployment.store());
    let text = text.replace(
        &path,
        &format!("url = \"{}\"\nsealer_url = \"{}\"", database.url(SERVICE), database.url(SEALER)),
    );
    let new = deployment.folder().join("new.toml");
    let (old, new, owner) = (old.to_str().unwrap(), new.to_str().unwrap(), database.url(OWNER));
    let migrate = ["migrate", "--config", new, "--from", old, "--owner", &owner];
    std::fs::write(new, text.replace("seal_dir", "witness_every_s = 60 # ")).unwrap();
    let refused = daypass_broker(&migrate).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("seal_dir"), "without its files: {refused:?}");
    std::fs::write(new, text).unwrap();
    let moved = daypass_broker(&migrate).await;
    assert_eq!(moved.code, Some(0), "{moved:?}");
    deployment.settings.store = database.at();
    seal_in_folder(&mut deployment);
    let after = deployment.settings.store.reader().unwrap();
    assert!(after.rows(0, 9_999).unwrap() == before, "all of it came over");
    deployment.resume().await.unwrap();
    grow(&deployment, 300).await;
    sealed(&deployment, 512).await;
    let size = u32::try_from(before.len()).unwrap();
    assert!(after.rows(0, size).unwrap() == before, "sealing goes on");
    eventually("what is sealed left the database", || async { unsealed(&database, 512) == 0 }).await;
}

/// Sealing begins as soon as the program serves: it is killed at any moment of it, and begins anew.
#[tokio::test]
async fn killed_at_any_moment_of_sealing_nothing_is_lost() {
    const SIZE: usize = 6_000;
    let mut deployment = Deployment::stopped(sample()).await;
    deployment.resume().await.unwrap();
    for _ in 0..SIZE / 500 {
        grow(&deployment, 500).await;
    }
    deployment.stop().await;
    seal_in_folder(&mut deployment);
    let at = &deployment.settings.store;
    let before = at.reader().unwrap().rows(0, 99_999).unwrap();
    let config = deployment.config_file();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("seal_dir", "seal_entries = 256\nseal_dir")).unwrap();
    let mut seen = Vec::new();
    for round in 0..40_u64 {
        let until = at.reader().unwrap().sealed_until().unwrap();
        seen.push(until);
        if until + 256 > before.len() as u64 {
            break;
        }
        let mut command = std::process::Command::new(program("daypass-broker"));
        command.args(["serve", "--config"]).arg(&config).stderr(std::process::Stdio::null());
        let mut serving = command.spawn().unwrap();
        let began = std::time::Instant::now();
        let moved = || at.reader().unwrap().sealed_until().unwrap() > until;
        while !moved() && began.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tokio::time::sleep(Duration::from_millis(round * 7 % 40)).await;
        serving.kill().unwrap();
        serving.wait().unwrap();
        let after = at.reader().unwrap().rows(0, u32::try_from(before.len()).unwrap()).unwrap();
        assert!(after == before, "killed in round {round}");
    }
    assert!(seen.len() > 3, "killed in the midst of it: {seen:?}");
    deployment.resume().await.unwrap();
    sealed(&deployment, 5_888).await;
    deployment.stop().await;
    let count = |sql: &str| -> i64 {
        let store = rusqlite::Connection::open(deployment.store()).unwrap();
        store.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let left = count("SELECT count(*) FROM entries WHERE idx < 5888 AND idx NOT IN (SELECT idx FROM folds)");
    assert_eq!(left, 0, "what is sealed left the database");
    let verified = daypass_broker(&["verify", "--config", config.to_str().unwrap()]).await;
    assert!(!verified.stdout.contains("MISMATCH") && !verified.stdout.contains("MISSING"), "{verified:?}");
}
