//! Unix sockets: where they are put, who may speak on them, and how much.

mod bucket;
mod peer;

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, chmodat, renameat, statat, unlinkat};
use rustix::io::Errno;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::config::Allowed;
use crate::files::FilesError;
use crate::files::place::{parent, refuse};

pub(crate) use bucket::Buckets;
pub(crate) use peer::Peer;

/// How many may be connected to one socket at once.
pub(crate) const CONNECTIONS_MAX: usize = 128;
/// How long to wait after a connection could not be accepted.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// A socket that is listened on. It goes when this is dropped.
pub(crate) struct Bound {
    listener: UnixListener,
    path: PathBuf,
    allowed: Allowed,
    room: Arc<Semaphore>,
}

/// Somebody who has connected.
pub(crate) struct Visitor {
    /// The connection.
    pub(crate) stream: UnixStream,
    /// Who it is; or why they may not ask.
    pub(crate) peer: Result<Peer, String>,
    /// Its place among those who may be connected at once.
    pub(crate) room: OwnedSemaphorePermit,
}

impl Bound {
    /// Puts up a socket. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When the place is not safe, something else is there, or somebody listens there.
    pub(crate) fn new(path: &Path, shared_parent: bool, allowed: &Allowed) -> Result<Self, FilesError> {
        let (directory, name) = parent(path, shared_parent)?;
        let failed = |error: Errno| refuse(path, &format!("no socket: {}", std::io::Error::from(error)));
        match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Socket => {
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(refuse(path, "somebody listens there: expected one agent for it"));
                }
            }
            Ok(_) => {
                return Err(refuse(path, "something else is in the way: expected nothing there, remove it"));
            }
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        // Under its name it is there only once it has its mode.
        let next = format!(".{name}.new");
        unlinkat(&directory, next.as_str(), AtFlags::empty()).ok();
        let through = format!("/proc/self/fd/{}/{next}", directory.as_raw_fd());
        let listener =
            UnixListener::bind(through).map_err(|error| refuse(path, &format!("no socket: {error}")))?;
        let mode = if allowed.only_own_user() { 0o600 } else { 0o666 };
        chmodat(&directory, next.as_str(), Mode::from_raw_mode(mode), AtFlags::empty())
            .and_then(|()| renameat(&directory, next.as_str(), &directory, name))
            .map_err(failed)?;
        info!("`{}` is served", path.display());
        Ok(Self {
            listener,
            path: path.to_owned(),
            allowed: allowed.clone(),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        })
    }

    /// The next who connects.
    pub(crate) async fn next(&self) -> Visitor {
        loop {
            // It cannot fail: nobody closes it.
            let Ok(room) = Arc::clone(&self.room).acquire_owned().await else { continue };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let peer = Peer::of(&stream).and_then(|peer| peer.check(&self.allowed).map(|()| peer));
                    if let Err(why) = &peer {
                        warn!("`{}`: {why}", self.path.display());
                    }
                    return Visitor { stream, peer, room };
                }
                Err(error) => {
                    warn!("`{}`: {error}", self.path.display());
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).ok();
    }
}
