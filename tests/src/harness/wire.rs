//! The network between a client and a server, which can be cut: what passed is gone, and nobody gets through.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A way to a port of loopback, for as long as this lives.
pub struct Wire {
    /// Where clients connect to.
    pub port: u16,
    to: Arc<AtomicU16>,
    cuts: watch::Sender<bool>,
    carried: Arc<AtomicU64>,
}

impl Wire {
    /// A way to `port`.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let to = Arc::new(AtomicU16::new(port));
        let (cuts, cut) = watch::channel(false);
        let carried = Arc::<AtomicU64>::default();
        tokio::spawn(carry_all(listener, Arc::clone(&to), cut, Arc::clone(&carried)));
        Self { port: own, to, cuts, carried }
    }

    /// Leads to another port from now on.
    pub fn lead_to(&self, port: u16) {
        self.to.store(port, Ordering::SeqCst);
    }

    /// Ends every connection, and lets none through.
    pub fn cut(&self) {
        self.cuts.send_replace(true);
    }

    /// Lets connections through again.
    pub fn mend(&self) {
        self.cuts.send_replace(false);
    }

    /// How many connections came through.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }
}

async fn carry_all(
    listener: TcpListener,
    to: Arc<AtomicU16>,
    cut: watch::Receiver<bool>,
    carried: Arc<AtomicU64>,
) {
    let mut gone = cut.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = gone.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let Ok((client, _)) = accepted else { return };
        if *cut.borrow() {
            continue;
        }
        carried.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(carry(
            client,
            SocketAddr::from(([127, 0, 0, 1], to.load(Ordering::SeqCst))),
            cut.clone(),
        ));
    }
}

async fn carry(mut client: TcpStream, to: SocketAddr, mut cut: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
}
