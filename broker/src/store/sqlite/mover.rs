//! Moving the write-ahead log into the database, beside the writer: under load a thread with a connection of its own
//! moves the bulk, and the writer only what was added meanwhile, so that no commit waits for much.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rusqlite::{Connection, OpenFlags};

const IDLE: u8 = 0;
const MOVING: u8 = 1;
const MOVED: u8 = 2;

/// Moves when asked to, until its owner is gone.
#[derive(Debug)]
pub(super) struct Mover {
    wake: SyncSender<()>,
    stage: Arc<AtomicU8>,
}

impl Mover {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub(super) fn start(path: &Path) -> std::io::Result<Self> {
        let (wake, asked) = sync_channel(1);
        let stage = Arc::new(AtomicU8::new(IDLE));
        let (path, own) = (PathBuf::from(path), Arc::clone(&stage));
        thread::Builder::new().name("wal-mover".into()).spawn(move || {
            while asked.recv().is_ok() {
                let moved = open(&path).and_then(|connection| move_wal(&connection)).inspect_err(warn);
                own.store(if moved.is_ok() { MOVED } else { IDLE }, Ordering::Release);
            }
        })?;
        Ok(Self { wake, stage })
    }

    /// Asks for a move, unless one is under way.
    pub(super) fn ask(&self) {
        if self.passes(IDLE, MOVING) {
            let _ = self.wake.try_send(());
        }
    }

    /// Whether a move was done since this was last asked: then little is left to move.
    pub(super) fn has_moved(&self) -> bool {
        self.passes(MOVED, IDLE)
    }

    fn passes(&self, from: u8, to: u8) -> bool {
        self.stage.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Moves all that no reader still needs. The log starts over with the next commit if that was everything.
pub(super) fn move_wal(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

pub(super) fn warn(error: &rusqlite::Error) {
    tracing::warn!(%error, "the write-ahead log could not be moved into the database");
}

/// Opened for each move: a connection that lies open would keep the file from being put in another's place.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.execute_batch("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;")?;
    Ok(connection)
}
