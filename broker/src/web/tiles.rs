//! The log's tree as tiles (C2SP tlog-tiles): hashes alone. Entries are read over gRPC, by who may read them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use daypass_evidence::tile::{Holds, Tile};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use tokio::sync::Semaphore;

use super::{Page, Site};
use crate::store::StoreError;

/// How many tiles are read at once: anybody may ask, and the store has other readers.
const READS: usize = 16;

/// Reads a tile of hashes; none when the log has not grown to it.
pub type ReadTile =
    Arc<dyn Fn(Tile) -> BoxFuture<'static, Result<Option<Vec<u8>>, StoreError>> + Send + Sync>;

/// Where tiles come from.
pub struct Tiles {
    read: ReadTile,
    seats: Semaphore,
}

impl Tiles {
    /// Tiles that `read` finds.
    #[must_use]
    pub fn new(read: ReadTile) -> Self {
        Self { read, seats: Semaphore::new(READS) }
    }
}

pub(super) async fn tile(State(site): State<Arc<Site>>, uri: Uri, headers: HeaderMap) -> Response {
    let named = uri.path().strip_prefix('/').and_then(Tile::from_path);
    let hashes = named.filter(|tile| matches!(tile.holds(), Holds::Hashes(_)) && uri.query().is_none());
    let (Some(tiles), Some(tile)) = (&site.tiles, hashes) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(_seat) = tiles.seats.try_acquire() else { return later() };
    match (tiles.read)(tile).await {
        Ok(Some(hashes)) => Page::tile(hashes).answer(&headers),
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
