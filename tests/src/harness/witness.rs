//! A witness as C2SP tlog-witness describes it, with a key and a memory of its own. It can be told to misbehave.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use daypass_broker::clock::{Clock as _, SystemClock};
use daypass_broker::witness::{Witness, WitnessSettings, submission_url};
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::note::{VerifierKey, WitnessKey};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::net::TcpListener;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As the specification says.
    Honest,
    /// Answers nothing that can be used.
    Unwell,
    /// Takes requests and never answers.
    Hangs,
    /// Sends callers elsewhere.
    Redirects,
    /// Signs another tree than the one that it was shown.
    SignsAnother,
    /// Says that it knows a tree of this size.
    Claims(u64),
    /// Answers at a length without end.
    Endless,
}

struct Memory {
    manner: Manner,
    newest: Option<Checkpoint>,
    asked: usize,
}

/// A witness that listens.
pub struct WitnessServer {
    /// Its key, as it publishes it.
    pub key: WitnessKey,
    at: SocketAddr,
    pair: Ed25519KeyPair,
    memory: Mutex<Memory>,
}

impl WitnessServer {
    /// Listens on loopback, for one log.
    pub async fn start(name: &str, log: VerifierKey) -> Arc<Self> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap();
        let key = WitnessKey::new(name, pair.public_key().as_ref().try_into().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let memory = Memory { manner: Manner::Honest, newest: None, asked: 0 };
        let server = Arc::new(Self { key, at, pair, memory: Mutex::new(memory) });
        tokio::spawn(Arc::clone(&server).serve(listener, log));
        server
    }

    /// Settings that ask it often, and find it silent after 300 ms.
    pub fn settings(&self, name: &str) -> WitnessSettings {
        let url = submission_url(&format!("http://{}/w", self.at)).unwrap();
        let witness = Witness { name: name.parse().unwrap(), url, key: self.key.clone() };
        WitnessSettings {
            witnesses: vec![witness],
            every: Duration::from_millis(50),
            silent_after: Duration::from_millis(300),
        }
    }

    /// Behaves so from now on.
    pub fn behave(&self, manner: Manner) {
        self.memory.lock().unwrap().manner = manner;
    }

    /// Remembers this from now on.
    pub fn remember(&self, newest: Option<Checkpoint>) {
        self.memory.lock().unwrap().newest = newest;
    }

    /// The newest checkpoint that it signed.
    pub fn newest(&self) -> Option<Checkpoint> {
        self.memory.lock().unwrap().newest.clone()
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.memory.lock().unwrap().asked
    }

    async fn serve(self: Arc<Self>, listener: TcpListener, log: VerifierKey) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (server, log) = (Arc::clone(&self), log.clone());
            let answer = service_fn(move |request: Request<Incoming>| {
                let (server, log) = (Arc::clone(&server), log.clone());
                async move { Ok::<_, Infallible>(server.answer(request, &log).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
        }
    }

    async fn answer(&self, request: Request<Incoming>, log: &VerifierKey) -> Response<Full<Bytes>> {
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/w/add-checkpoint"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let manner = {
            let mut memory = self.memory.lock().unwrap();
            memory.asked += 1;
            memory.manner
        };
        match manner {
            Manner::Honest => self.add_checkpoint(&body, log),
            Manner::Unwell => says(StatusCode::SERVICE_UNAVAILABLE, "come again"),
            Manner::Hangs => std::future::pending().await,
            Manner::Redirects => {
                let elsewhere = format!("http://{}/w/elsewhere", self.at);
                let response = Response::builder().status(StatusCode::TEMPORARY_REDIRECT);
                response.header("location", elsewhere).body(Full::default()).unwrap()
            }
            Manner::SignsAnother => {
                let another = Checkpoint { origin: log.name().into(), size: 7, root: [7; 32] };
                says(StatusCode::OK, &self.sign(&another.text()))
            }
            Manner::Claims(size) => size_of(size),
            Manner::Endless => says(StatusCode::OK, &"\u{2014} w x\n".repeat(100_000)),
        }
    }

    /// The checks in their order (C2SP tlog-witness, "add-checkpoint").
    fn add_checkpoint(&self, body: &[u8], log: &VerifierKey) -> Response<Full<Bytes>> {
        let text = std::str::from_utf8(body).unwrap();
        let (head, note) = text.split_once("\n\n").unwrap();
        let mut lines = head.split('\n');
        let old: u64 = lines.next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
        let proof: Vec<tlog_tiles::Hash> =
            lines.map(|line| tlog_tiles::Hash(STANDARD.decode(line).unwrap().try_into().unwrap())).collect();
        let Ok(offered) = Checkpoint::open(note.as_bytes(), log) else {
            return says(StatusCode::FORBIDDEN, "no signature by a trusted key");
        };
        if old > offered.size || proof.len() > 63 {
            return says(StatusCode::BAD_REQUEST, "not a request");
        }
        let mut memory = self.memory.lock().unwrap();
        let known = memory.newest.as_ref().map_or(0, |newest| newest.size);
        if known != old {
            return size_of(known);
        }
        match &memory.newest {
            Some(newest) if newest.size == offered.size && newest.root != offered.root => {
                return size_of(known);
            }
            Some(newest) if newest.size == offered.size && proof.is_empty() => {}
            None if proof.is_empty() => {}
            Some(newest) if newest.size < offered.size => {
                let [now, before] = [offered.root, newest.root].map(tlog_tiles::Hash);
                if tlog_tiles::check_tree(&proof, offered.size, now, newest.size, before).is_err() {
                    return says(StatusCode::UNPROCESSABLE_ENTITY, "the proof does not verify");
                }
            }
            _ => return says(StatusCode::UNPROCESSABLE_ENTITY, "a proof where none belongs"),
        }
        let signed = self.sign(&offered.text());
        memory.newest = Some(offered);
        says(StatusCode::OK, &format!("{}{signed}", stranger()))
    }

    /// A timestamped signature over the text of a checkpoint (C2SP tlog-cosignature).
    fn sign(&self, text: &str) -> String {
        let time_s = u64::try_from(SystemClock.now().get() / 1000).unwrap();
        let signature = self.pair.sign(format!("cosignature/v1\ntime {time_s}\n{text}").as_bytes());
        let published = self.key.to_string();
        let id = published.strip_prefix(self.key.name()).unwrap()[1..9].to_owned();
        let id = u32::from_str_radix(&id, 16).unwrap().to_be_bytes();
        let blob = [&id[..], &time_s.to_be_bytes(), signature.as_ref()].concat();
        format!("\u{2014} {} {}\n", self.key.name(), STANDARD.encode(blob))
    }
}

/// The line of a witness that nobody knows.
fn stranger() -> String {
    format!("\u{2014} stranger.example {}\n", STANDARD.encode([9; 76]))
}

fn size_of(size: u64) -> Response<Full<Bytes>> {
    let response =
        Response::builder().status(StatusCode::CONFLICT).header("content-type", "text/x.tlog.size");
    response.body(Full::from(format!("{size}\n"))).unwrap()
}

fn says(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(text.to_owned())).unwrap()
}
