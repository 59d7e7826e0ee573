//! The network between a broker and its database, which does as it is told: lets all pass, holds what goes one way or
//! both, and loses the answer to one COMMIT. It reads PostgreSQL's messages (protocol 3.0) no further than that needs.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What is done with the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// The server gets it and carries it out; then the connection is cut, and its answer is lost.
    LoseAnswer,
    /// The connection is cut before the server gets it.
    Lose,
    /// The server gets it; its answer is held until [`Proxy::heal`].
    HoldAnswer,
}

#[derive(Default)]
struct State {
    up: bool,
    down: bool,
    armed: Option<Commit>,
    reached: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A proxy on loopback, until the process ends.
pub struct Proxy {
    /// Where brokers connect to.
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// In front of the server on `port` of loopback.
    pub fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let all = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(to) else { continue };
                carry(&client, &server, &all);
            }
        });
        Self { port: own, shared }
    }

    /// Nothing passes either way; nobody is told.
    pub fn stall(&self) {
        self.set(|state| (state.up, state.down) = (true, true));
    }

    /// What the broker says reaches the server; no answer comes back.
    pub fn stall_answers(&self) {
        self.set(|state| state.down = true);
    }

    /// All passes again, what was held first.
    pub fn heal(&self) {
        self.set(|state| (state.up, state.down) = (false, false));
    }

    /// Does this with the next COMMIT.
    pub fn arm(&self, commit: Commit) {
        self.set(|state| state.armed = Some(commit));
    }

    /// Waits until `count` armed COMMITs have come.
    pub fn wait_for(&self, count: u64) {
        let began = Instant::now();
        let mut state = self.shared.state.lock().unwrap();
        while state.reached < count {
            assert!(began.elapsed() < Duration::from_secs(30), "no COMMIT came within 30 s");
            state = self.shared.changed.wait_timeout(state, Duration::from_secs(1)).unwrap().0;
        }
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

/// Two threads carry what two ends say.
fn carry(client: &TcpStream, server: &TcpStream, shared: &Arc<Shared>) {
    drop(client.set_nodelay(true));
    drop(server.set_nodelay(true));
    let both = || (client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(shared));
    let lost = Arc::new(Mutex::new(false));
    let (client_end, server_end, all) = both();
    let losing = Arc::clone(&lost);
    thread::spawn(move || {
        upward(&client_end, &server_end, &all, &losing);
        drop(server_end.shutdown(Shutdown::Write));
    });
    let (client_end, server_end, all) = both();
    thread::spawn(move || {
        downward(&server_end, &client_end, &all, &lost);
        drop(client_end.shutdown(Shutdown::Both));
        drop(server_end.shutdown(Shutdown::Both));
    });
}

/// From the broker to the server. Ends where either is gone, or a COMMIT is lost.
fn upward(mut client: &TcpStream, mut server: &TcpStream, shared: &Shared, lost: &Mutex<bool>) {
    let mut messages = Messages::default();
    let mut bytes = [0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = client.read(&mut bytes) else { return };
        let read = &bytes[..count];
        let commits = messages.read(read);
        let armed = {
            let state = shared.state.lock().unwrap();
            let mut state = shared.changed.wait_while(state, |state| state.up).unwrap();
            let armed = if commits { state.armed.take() } else { None };
            if armed.is_some() {
                state.reached += 1;
                state.down |= armed == Some(Commit::HoldAnswer);
                *lost.lock().unwrap() = armed == Some(Commit::LoseAnswer);
            }
            armed
        };
        if armed == Some(Commit::Lose) {
            drop(server.shutdown(Shutdown::Both));
            shared.changed.notify_all();
            return;
        }
        let written = server.write_all(read);
        shared.changed.notify_all();
        if written.is_err() {
            return;
        }
    }
}

/// From the server to the broker. Where a COMMIT's answer is lost, what the server says is read and dropped until it
/// has carried it out, and then nobody hears of it.
fn downward(mut server: &TcpStream, mut client: &TcpStream, shared: &Shared, lost: &Mutex<bool>) {
    let mut bytes = [0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = server.read(&mut bytes) else { return };
        if *lost.lock().unwrap() {
            // The answer to COMMIT names it.
            if bytes[..count].windows(7).any(|it| it == b"COMMIT\0") {
                return;
            }
            continue;
        }
        let state = shared.state.lock().unwrap();
        drop(shared.changed.wait_while(state, |state| state.down).unwrap());
        if client.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}

/// The messages of a client, of which all but the first begin with a letter.
#[derive(Default)]
struct Messages {
    started: bool,
    buffered: Vec<u8>,
}

impl Messages {
    /// Takes what was read, and says whether a COMMIT is in it.
    fn read(&mut self, bytes: &[u8]) -> bool {
        self.buffered.extend_from_slice(bytes);
        let mut commits = false;
        loop {
            let letter = usize::from(self.started);
            let Some(length) = self.buffered.get(letter..letter + 4) else { return commits };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize + letter;
            if self.buffered.len() < length {
                return commits;
            }
            let message: Vec<u8> = self.buffered.drain(..length).collect();
            commits |= self.started && message[0] == b'Q' && message[5..].starts_with(b"COMMIT");
            self.started = true;
        }
    }
}
