//! The network between two programs on loopback, which does as it is told: lets all pass, refuses and drops, or says nothing.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// All passes.
    Up,
    /// Every connection is dropped, and none is accepted.
    Cut,
    /// Connections are accepted, and nothing passes on any; those that lived or were made meanwhile stay open and silent for
    /// good, as where a router between has forgotten them.
    Silent,
}

struct State {
    link: Link,
    /// What the accepting thread has done of it.
    done: Link,
    ends: Vec<(TcpStream, TcpStream, Arc<AtomicBool>)>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A network on loopback, until the process ends.
pub struct Network {
    shared: Arc<Shared>,
}

impl Network {
    /// From `port` to the server on `to`.
    pub fn between(port: u16, to: u16) -> Self {
        let state = State { link: Link::Up, done: Link::Cut, ends: Vec::new() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let all = Arc::clone(&shared);
        thread::spawn(move || accept(port, to, &all));
        let made = Self { shared };
        made.set(Link::Up);
        made
    }

    /// Has it so from now on.
    pub fn set(&self, link: Link) {
        let mut state = self.shared.state.lock().unwrap();
        state.link = link;
        for (client, server, dead) in &state.ends {
            dead.fetch_or(link == Link::Silent, Ordering::SeqCst);
            if link == Link::Cut {
                drop(client.shutdown(Shutdown::Both));
                drop(server.shutdown(Shutdown::Both));
            }
        }
        if link == Link::Cut {
            state.ends.clear();
        }
        drop(self.shared.changed.wait_while(state, |state| state.done != link).unwrap());
    }

    /// How many connections it was asked to carry since it was last cut.
    #[must_use]
    pub fn carried(&self) -> usize {
        self.shared.state.lock().unwrap().ends.len()
    }

    /// Those that live fall silent for good; new ones are as ever.
    pub fn forget(&self) {
        self.set(Link::Silent);
        self.set(Link::Up);
    }
}

fn accept(port: u16, to: u16, shared: &Shared) {
    let mut listener = None;
    loop {
        let link = {
            let mut state = shared.state.lock().unwrap();
            if state.link == Link::Cut {
                listener = None;
            } else if listener.is_none() {
                let made = TcpListener::bind(("127.0.0.1", port)).unwrap();
                made.set_nonblocking(true).unwrap();
                listener = Some(made);
            }
            state.done = state.link;
            shared.changed.notify_all();
            state.link
        };
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => carry(client, to, link, shared),
            Some(Err(error)) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            None => {}
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Two threads carry what two ends say.
fn carry(client: TcpStream, to: u16, link: Link, shared: &Shared) {
    // Where nobody listens the caller is told so, as by the machine itself.
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
    client.set_nonblocking(false).unwrap();
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let dead = Arc::new(AtomicBool::new(link == Link::Silent));
    let both = || (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&dead));
    let (upward, downward) = (both(), both());
    thread::spawn(move || pass(&upward.0, &upward.1, &upward.2, true));
    thread::spawn(move || pass(&downward.1, &downward.0, &downward.2, false));
    shared.state.lock().unwrap().ends.push((client, server, dead));
}

/// Ends where either is gone; what was forgotten is told to the client's end never, and to the server's when the client leaves.
fn pass(mut from: &TcpStream, mut to: &TcpStream, dead: &AtomicBool, upward: bool) {
    let mut bytes = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if !dead.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    if upward || !dead.load(Ordering::SeqCst) {
        drop(to.shutdown(Shutdown::Both));
    }
}
