//! What systemd is told (`sd_notify`), where it asked to be.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Every credential is there.
    Ready,
    /// The agent ends.
    Stopping,
}

/// Tells it, if anybody wants to know.
pub(crate) fn tell(state: State) {
    let Ok(socket) = std::env::var("NOTIFY_SOCKET") else { return };
    let text = match state {
        State::Ready => "READY=1\nSTATUS=every credential is there",
        State::Stopping => "STOPPING=1",
    };
    if let Err(error) = send(&socket, text) {
        warn!("systemd could not be told `{text}`: {error}");
    }
}

fn send(socket: &str, text: &str) -> std::io::Result<()> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}
