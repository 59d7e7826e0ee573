//! Who is at the other end, as the handshake showed it.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::CertificateDer;

/// The other end of a connection. Nothing in it is verified but that the caller holds the key of the first
/// certificate.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address; an IPv4 address is told as one on an IPv6 socket too.
    pub addr: SocketAddr,
    /// The certificates it showed, its own first; empty when it showed none.
    pub chain: Arc<[CertificateDer<'static>]>,
}

/// One connection: an extension of each of its requests, as an `Arc<Connection>`.
#[derive(Debug)]
pub struct Connection {
    /// The other end.
    pub peer: Peer,
    memory: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Connection {
    /// A connection from `addr` over which `chain` was shown.
    #[must_use]
    pub fn new(addr: SocketAddr, chain: Option<&[CertificateDer<'static>]>) -> Self {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        Self { peer: Peer { addr, chain: chain.unwrap_or_default().into() }, memory: Mutex::new(None) }
    }

    /// What was last remembered, if it is a `T`: whatever costs too much to work out anew from the same chain on
    /// each request. Whether it still holds is the asker's to judge.
    #[must_use]
    pub fn remembered<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.clone().and_then(|value| value.downcast().ok())
    }

    /// Remembers `value` in place of what was remembered.
    pub fn remember<T: Any + Send + Sync>(&self, value: Arc<T>) {
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_remembers_the_newest_value_of_the_type_asked_for() {
        let connection = Connection::new("[::ffff:192.0.2.7]:9".parse().unwrap(), None);
        assert_eq!(connection.peer.addr, "192.0.2.7:9".parse().unwrap());
        assert!(connection.remembered::<u32>().is_none());
        connection.remember(Arc::new(7_u32));
        connection.remember(Arc::new(8_u32));
        assert_eq!(connection.remembered::<u32>().as_deref(), Some(&8));
        assert!(connection.remembered::<String>().is_none());
    }
}
