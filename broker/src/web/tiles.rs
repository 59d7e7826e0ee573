//! The log's tree as tiles (C2SP tlog-tiles): hashes alone. Entries are read over gRPC, by who may read them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use daypass_evidence::tile::{Holds, Tile};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use tokio::sync::Semaphore;

use super::{NewestCheckpoint, Page, Site};
use crate::store::StoreError;

/// How many tiles are read at once: anybody may ask, and the store has other readers.
const READS: usize = 16;

/// Where each log is found by its name.
const LOGS: &str = "/evidence/";

/// Reads a tile of hashes; none when the log has not grown to it.
pub type ReadTile =
    Arc<dyn Fn(Tile) -> BoxFuture<'static, Result<Option<Vec<u8>>, StoreError>> + Send + Sync>;

/// Where tiles come from; cheap to clone.
#[derive(Clone)]
pub struct Tiles {
    read: ReadTile,
    seats: Arc<Semaphore>,
}

impl Tiles {
    /// Tiles that `read` finds.
    #[must_use]
    pub fn new(read: ReadTile) -> Self {
        Self { read, seats: Arc::new(Semaphore::new(READS)) }
    }

    /// Tiles of another log, which share the seats of these.
    #[must_use]
    pub fn of(&self, read: ReadTile) -> Self {
        Self { read, seats: Arc::clone(&self.seats) }
    }
}

/// What anybody may read of one log.
pub struct LogShown {
    /// Its newest checkpoint.
    pub checkpoint: NewestCheckpoint,
    /// Its tree's hashes; none where this broker does not publish them.
    pub tiles: Option<Tiles>,
}

pub(super) async fn tile(State(site): State<Arc<Site>>, uri: Uri, headers: HeaderMap) -> Response {
    answer(site.tiles.as_ref(), uri.path().strip_prefix('/'), &uri, &headers).await
}

/// What is asked of a log by its name: `/evidence/SHARD/checkpoint` and `/evidence/SHARD/tile/...`, so that each keeps its
/// place (C2SP tlog-tiles, "Parameters") when another follows it.
pub(super) async fn of_log(State(site): State<Arc<Site>>, uri: Uri, headers: HeaderMap) -> Response {
    let named = uri.path().strip_prefix(LOGS).and_then(|path| path.split_once('/'));
    let found = named.and_then(|(shard, path)| Some((site.logs.get(shard)?, path)));
    match found {
        Some((log, "checkpoint")) => note((log.checkpoint)(), &headers),
        Some((log, path)) => answer(log.tiles.as_ref(), Some(path), &uri, &headers).await,
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// A C2SP signed note (tlog-checkpoint), where it is published.
pub(super) fn note(note: Option<Arc<[u8]>>, headers: &HeaderMap) -> Response {
    note.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |note| Page::note(note).answer(headers))
}

async fn answer(tiles: Option<&Tiles>, path: Option<&str>, uri: &Uri, headers: &HeaderMap) -> Response {
    let named = path.and_then(Tile::from_path);
    let hashes = named.filter(|tile| matches!(tile.holds(), Holds::Hashes(_)) && uri.query().is_none());
    let (Some(tiles), Some(tile)) = (tiles, hashes) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(_seat) = tiles.seats.try_acquire() else { return later() };
    match (tiles.read)(tile).await {
        Ok(Some(hashes)) => Page::tile(hashes).answer(headers),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => {
            tracing::warn!(%error, %tile, "a tile could not be read");
            later()
        }
    }
}

fn later() -> Response {
    let again = (header::RETRY_AFTER, HeaderValue::from_static("1"));
    (StatusCode::SERVICE_UNAVAILABLE, [again]).into_response()
}
