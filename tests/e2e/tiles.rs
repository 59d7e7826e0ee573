//! The log's tree as anybody may fetch it, read by a stock implementation of C2SP tlog-tiles.

use std::path::PathBuf;
use std::process::Command;

use daypass_broker::log::Attached;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{BrokerStopped, NewEntry};
use daypass_proto::v1 as pb;
use daypass_tests::harness::Deployment;
use tlog_tiles::{Error, HashReader, Tile, TileHashReader, TileReader};

use super::shards::{closing_at, shards};

/// Fetches tiles as any HTTP client would.
#[derive(Clone)]
struct Web {
    prefix: String,
    ca: PathBuf,
}

impl Web {
    fn of(deployment: &Deployment) -> Self {
        Self { prefix: deployment.settings.issuer.as_str().to_owned(), ca: deployment.listener_ca.clone() }
    }

    /// The place of one log, whether it is closed or not.
    fn of_log(deployment: &Deployment, origin: &str) -> Self {
        let Self { prefix, ca } = Self::of(deployment);
        let (_, shard) = origin.rsplit_once('/').unwrap();
        Self { prefix: format!("{prefix}/evidence/{shard}"), ca }
    }

    fn fetch(&self, path: &str) -> Vec<u8> {
        let fetched = Command::new("curl")
            .args(["--max-time", "20"])
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--cacert"])
            .arg(&self.ca)
            .arg(format!("{}/{path}", self.prefix))
            .output()
            .unwrap();
        assert!(fetched.status.success(), "{path}: {}", String::from_utf8_lossy(&fetched.stderr));
        fetched.stdout
    }
}

impl TileReader for Web {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        // Theirs name the height too, as the checksum database does: C2SP's is always 8, and left out.
        Ok(tiles.iter().map(|tile| self.fetch(&tile.path().replacen("tile/8/", "tile/", 1))).collect())
    }

    fn save_tiles(&self, _: &[Tile], _: &[Vec<u8>]) {}
}

async fn grow(deployment: &Deployment, entries: usize) {
    let desk = &deployment.broker().desk;
    let entry = || NewEntry {
        id: desk.ids.draw(desk.clock.now()).unwrap(),
        request: None,
        by: None,
        body: BrokerStopped { reason: "a leaf among others".into(), of: None }.into(),
    };
    let grown = desk.log.append((0..entries).map(|_| entry()).collect(), Attached::default()).await;
    assert_eq!(grown.unwrap().len(), entries);
}

async fn entry_at(deployment: &Deployment, index: u64) -> Vec<u8> {
    let operator = deployment.operator().await;
    let wanted = pb::ListEntriesRequest { start: index, limit: 1, ..Default::default() };
    let mut listed =
        operator.evidence().list_entries(operator.request(wanted).unwrap()).await.unwrap().into_inner();
    listed.message().await.unwrap().unwrap().entry.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_reader_proves_entries_from_tiles_fetched_over_http() {
    let deployment = Deployment::start().await;
    grow(&deployment, 600).await;
    let web = Web::of(&deployment);
    let note = web.fetch("checkpoint");
    let checkpoint = Checkpoint::open(&note, &deployment.log_key).unwrap();
    assert!(checkpoint.size > 512, "the tree has two full tiles and one above them");
    for index in [0, 300, checkpoint.size - 1] {
        let entry = entry_at(&deployment, index).await;
        let (web, size, root) = (web.clone(), checkpoint.size, tlog_tiles::Hash(checkpoint.root));
        let proven = tokio::task::spawn_blocking(move || {
            let reader = TileHashReader::new(size, root, &web);
            let proof = tlog_tiles::prove_record(size, index, &reader).unwrap();
            tlog_tiles::check_record(&proof, size, root, index, tlog_tiles::record_hash(&entry)).is_ok()
        });
        assert!(proven.await.unwrap(), "{index}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stock_reader_sees_that_the_log_only_grew() {
    let deployment = Deployment::start().await;
    let web = Web::of(&deployment);
    let open = |note: Vec<u8>| Checkpoint::open(&note, &deployment.log_key).unwrap();
    let before = open(web.fetch("checkpoint"));
    grow(&deployment, 300).await;
    let after = open(web.fetch("checkpoint"));
    let [old, new] = [&before, &after].map(|checkpoint| tlog_tiles::Hash(checkpoint.root));
    let (first, size) = (before.size, after.size);
    let grew = tokio::task::spawn_blocking(move || {
        let reader = TileHashReader::new(size, new, &web);
        let proof = tlog_tiles::prove_tree(size, first, &reader).unwrap();
        let other = reader.read_hashes(&[tlog_tiles::stored_hash_index(0, 0)]).unwrap()[0];
        assert!(
            tlog_tiles::check_tree(&proof, size, new, first, other).is_err(),
            "another tree is none before it"
        );
        tlog_tiles::check_tree(&proof, size, new, first, old).is_ok()
    });
    assert!(grew.await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_log_keeps_its_place_with_its_last_checkpoint_and_all_its_tiles() {
    let mut deployment = closing_at(400).await;
    let old = deployment.broker().log().published().head.origin.clone();
    let open = |web: &Web| Checkpoint::open_shard(&web.fetch("checkpoint"), &deployment.log_key).unwrap();
    assert_eq!(open(&Web::of_log(&deployment, &old)).origin, old, "it has it before it is closed");
    grow(&deployment, 400).await;
    deployment.turn().await;
    let web = Web::of_log(&deployment, &old);
    let open = |web: &Web| Checkpoint::open_shard(&web.fetch("checkpoint"), &deployment.log_key).unwrap();
    let (last, newest) = (open(&web), open(&Web::of(&deployment)));
    assert_eq!((last.origin.as_str(), newest.origin), (old.as_str(), format!("{old}-2")));
    let entries = shards(&deployment.settings.store).remove(0).1;
    assert_eq!(last.size, entries.len() as u64);
    let (size, root) = (last.size, tlog_tiles::Hash(last.root));
    let proven = tokio::task::spawn_blocking(move || {
        let reader = TileHashReader::new(size, root, &web);
        [0, 300, size - 1].map(|index| {
            let proof = tlog_tiles::prove_record(size, index, &reader).unwrap();
            let entry = tlog_tiles::record_hash(&entries[usize::try_from(index).unwrap()]);
            tlog_tiles::check_record(&proof, size, root, index, entry).is_ok()
        })
    });
    assert_eq!(proven.await.unwrap(), [true; 3]);
}
