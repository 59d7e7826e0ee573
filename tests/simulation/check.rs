//! The whole world, checked: what callers hold against what the log says. Reads entries for itself, beside the audit
//! that the product has, so that a fault of one is not a fault of both.

use std::collections::{BTreeMap, HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use daypass_broker::issue::Credential;
use daypass_broker::keyring::Keyring;
use daypass_broker::signer::Keys as _;
use daypass_broker::store::{Reader, base};
use daypass_core::draft::Assembled;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_evidence::entry::{
    Body, CredentialIssued, EndedHow, Entry, Index, LogClosed, LogOpened, Predecessor, ProofUse, Selector,
    SuspensionSet,
};
use daypass_evidence::note::VerifierKey;
use daypass_evidence::tree::{Frontier, Hash, leaf_hash, verify_inclusion};
use daypass_verify::ids::{CredentialId, Digest};
use daypass_verify::time::UnixMs;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const LEEWAY_MS: i64 = 30_000;
const DUE_MS: i64 = 90_000;
const REQUEST_IDS_MS: i64 = 600_000;

/// The code of an alarm that must never be in the log.
pub(crate) const HALF: &str = "HALF";

/// What a caller holds.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) id: CredentialId,
    /// Raised by the base of its log.
    pub(crate) index: Index,
    pub(crate) whole: Digest,
    pub(crate) tbs: Digest,
}

impl Held {
    /// Takes a credential as its caller does: the receipt and the signature must be good.
    pub(crate) fn take(
        credential: &Credential,
        key: &VerifierKey,
        keyring: &Keyring,
    ) -> Result<Self, String> {
        let place = credential.place();
        let checkpoint = Checkpoint::open_shard(&place.checkpoint, key).map_err(|error| error.to_string())?;
        verify_inclusion(place.leaf, place.index, checkpoint.size, &place.inclusion, checkpoint.root)
            .map_err(|error| format!("the receipt of {} does not verify: {error}", credential.id()))?;
        let (tbs, signature) = parts(credential.assembled());
        if !keyring.verifies(credential.granted().key(), &tbs, &signature) {
            return Err(format!("{} was handed out with a signature that does not verify", credential.id()));
        }
        Ok(Self {
            id: credential.id(),
            index: base(place.shard) + place.index,
            whole: credential.digest(),
            tbs: Digest::of(&tbs),
        })
    }
}

/// The signed bytes and the signature of a whole credential.
fn parts(assembled: &Assembled) -> (Vec<u8>, Vec<u8>) {
    match assembled {
        Assembled::Token(token) => {
            let (input, signature) = token.rsplit_once('.').unwrap();
            (input.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(signature).unwrap())
        }
        Assembled::Certificate(der) => {
            let (_, certificate) = X509Certificate::from_der(der).unwrap();
            (certificate.tbs_certificate.as_ref().to_vec(), certificate.signature_value.data.to_vec())
        }
    }
}

struct Issuance {
    id: CredentialId,
    tbs: Digest,
    exp: UnixMs,
    ended: bool,
}

/// What the entries so far say: of one log after the other. Credentials are known by their place in the store.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Which log is read.
    shard: u32,
    read: Index,
    closed: Option<String>,
    /// All logs so far, and the root of each at each of its sizes.
    logs: Vec<(String, Vec<Hash>)>,
    time: UnixMs,
    state: Index,
    issued: BTreeMap<Index, Issuance>,
    by_tbs: HashMap<Digest, Index>,
    proofs: HashSet<Digest>,
    requests: HashMap<String, UnixMs>,
    void: HashSet<Index>,
    released: BTreeMap<Index, Digest>,
    suspended: BTreeMap<Index, SuspensionSet>,
    frontier: Frontier,
}

impl Ledger {
    /// Reads on, and checks each entry against those before it.
    pub(crate) fn read_on(&mut self, reader: &dyn Reader) -> Result<(), String> {
        loop {
            let rows = reader.rows(self.read, 1_000).map_err(|error| error.to_string())?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                let entry = Entry::read(&row.bytes).map_err(|error| error.to_string())?;
                let checked = self.entry(row.index, &entry);
                checked.map_err(|failure| format!("entry {}: {failure}", row.index))?;
                self.frontier.append(leaf_hash(&row.bytes));
                self.logs.last_mut().unwrap().1.push(self.frontier.root());
                self.read = row.index + 1;
            }
        }
    }

    /// Which log is read.
    pub(crate) fn shard(&self) -> u32 {
        self.shard
    }

    /// Goes on with the log that follows: what was suspended is suspended anew there.
    pub(crate) fn turn(&mut self) -> Result<(), String> {
        check(self.closed.is_some(), || "a log is followed by another, and was not closed".into())?;
        (self.shard, self.read, self.state) = (self.shard + 1, 0, 0);
        self.frontier = Frontier::empty();
        self.suspended.clear();
        Ok(())
    }

    /// Where the credentials of a log lie: the one that is read, or one before it that is known.
    fn base_of(&self, log: Option<&String>) -> Option<Index> {
        match log {
            None => Some(base(self.shard)),
            Some(origin) => {
                let at = self.logs.iter().position(|(known, _)| known == origin)?;
                Some(base(u32::try_from(at).unwrap()))
            }
        }
    }

    fn opened(&mut self, opened: &LogOpened) -> Result<(), String> {
        let before = self.logs.last().zip(self.closed.take());
        if let Some(((origin, roots), successor)) = before {
            let ended = Predecessor {
                origin: origin.clone(),
                size: roots.len() as u64,
                root: Digest::from_bytes(*roots.last().unwrap()),
            };
            let follows = successor == opened.origin && opened.predecessor.as_ref() == Some(&ended);
            check(follows, || "it does not follow the log that was closed".into())?;
        }
        self.logs.push((opened.origin.clone(), Vec::new()));
        Ok(())
    }

    fn closes(&mut self, closed: &LogClosed) -> Result<(), String> {
        let live = self.issued.range(base(self.shard)..).filter(|(_, it)| !it.ended).count() as u64;
        check(closed.live == live, || format!("closed with {} that live, not {live}", closed.live))?;
        self.closed = Some(closed.successor.clone());
        Ok(())
    }

    fn entry(&mut self, index: Index, entry: &Entry) -> Result<(), String> {
        let time = entry.envelope.time;
        check(index == self.read, || format!("expected entry {}", self.read))?;
        check(time >= self.time, || format!("time {time} after {}", self.time))?;
        self.time = time;
        check(self.closed.is_none() || index == 0, || "the log was closed before".into())?;
        match &entry.body {
            Body::LogOpened(opened) => self.opened(opened)?,
            Body::LogClosed(closed) => self.closes(closed)?,
            Body::CredentialIssued(issued) => self.issued(index, entry, issued)?,
            Body::CredentialSettled(settled) => {
                let Some(base) = self.base_of(settled.log.as_ref()) else { return Ok(()) };
                for (credential, whole, _) in &settled.released {
                    let again = self.released.insert(base + credential, *whole).is_some();
                    check(!again, || format!("credential {credential} is released twice"))?;
                }
                for (credential, _) in &settled.void {
                    self.void.insert(base + credential);
                    self.end(base + credential)?;
                }
            }
            Body::CredentialEnded(ended) => {
                let Some(base) = self.base_of(ended.log.as_ref()) else { return Ok(()) };
                for credential in &ended.ended {
                    let exp = self.issued.get(&(base + credential)).map(|issuance| issuance.exp);
                    let early = ended.how == EndedHow::Expired
                        && exp.is_some_and(|exp| time < exp.plus_millis(LEEWAY_MS));
                    check(!early, || format!("credential {credential} ended before its end"))?;
                    self.end(base + credential)?;
                }
            }
            Body::Alarm(alarm) if alarm.code == HALF => return Err("half of an append was written".into()),
            Body::SuspensionSet(set) => drop(self.suspended.insert(index, (**set).clone())),
            Body::SuspensionLifted(lifted) => drop(self.suspended.remove(&lifted.suspension)),
            _ => {}
        }
        if entry.body.changes_state() {
            self.state = index;
        }
        Ok(())
    }

    fn issued(&mut self, index: Index, entry: &Entry, issued: &CredentialIssued) -> Result<(), String> {
        let suspended = self.suspended.values().any(|set| selects(&set.selector, issued));
        check(!suspended, || "something suspended got a credential".into())?;
        let state = issued.decision.state;
        check(state == self.state, || format!("decided under state {state}, not {}", self.state))?;
        let within = issued.granted.scope.is_within(&issued.asked.scope);
        check(within, || "more was granted than asked".into())?;
        if issued.proof.usage == ProofUse::Once {
            let fresh = self.proofs.insert(issued.proof.digest);
            check(fresh, || "one proof bought two credentials".into())?;
        }
        if let Some(request) = entry.envelope.request {
            let before = self.requests.insert(format!("{} {request}", issued.identity.name), self.time);
            let again = before.is_some_and(|before| self.time.millis_since(before) < REQUEST_IDS_MS);
            check(!again, || "one request id bought two credentials".into())?;
        }
        let index = base(self.shard) + index;
        let (tbs, exp) = (issued.credential.tbs, issued.credential.exp_ms);
        let fresh = self.by_tbs.insert(tbs, index).is_none();
        check(fresh, || "one credential was recorded twice".into())?;
        self.issued.insert(index, Issuance { id: entry.envelope.id, tbs, exp, ended: false });
        Ok(())
    }

    fn end(&mut self, credential: Index) -> Result<(), String> {
        let Some(issuance) = self.issued.get_mut(&credential) else {
            return Err(format!("entry {credential} issued nothing that could end"));
        };
        check(!issuance.ended, || format!("credential {credential} ended twice"))?;
        issuance.ended = true;
        Ok(())
    }

    /// Compares what the entries say with what callers hold and keys signed.
    pub(crate) fn compare(&self, held: &[Held], signed: &[(Digest, u64)]) -> Result<(), String> {
        for (tbs, size) in signed {
            let recorded = self.by_tbs.get(tbs).is_some_and(|index| index < size);
            check(recorded, || "a key signed bytes that the log did not hold at that moment".into())?;
        }
        for it in held {
            let found = self.issued.get(&it.index).filter(|entry| entry.id == it.id && entry.tbs == it.tbs);
            check(found.is_some(), || {
                format!("{} is held, and entry {} is not its record", it.id, it.index)
            })?;
            check(!self.void.contains(&it.index), || format!("{} is held, and called void", it.id))?;
            let whole = self.released.get(&it.index);
            check(whole.is_none_or(|whole| *whole == it.whole), || {
                format!("{} settled as other bytes", it.id)
            })?;
        }
        Ok(())
    }

    /// A checkpoint that left a broker is of this log: so no two of one size differ, and each extends those before.
    pub(crate) fn check_checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), String> {
        let at = usize::try_from(checkpoint.size).unwrap().checked_sub(1).unwrap();
        let log = self.logs.iter().find(|(origin, _)| *origin == checkpoint.origin);
        let same = log.and_then(|(_, roots)| roots.get(at)) == Some(&checkpoint.root);
        check(same, || format!("a checkpoint of size {} that is not of this log", checkpoint.size))
    }

    /// What is called released was received: true where callers cannot lose an answer.
    pub(crate) fn compare_released(&self, held: &[Held]) -> Result<(), String> {
        let in_hands: HashSet<Index> = held.iter().map(|it| it.index).collect();
        let foreign = self.released.keys().find(|index| !in_hands.contains(index));
        check(foreign.is_none(), || format!("credential {foreign:?} is called released, and nobody got it"))
    }

    /// What should have ended by the time of the last entry.
    pub(crate) fn check_endings(&self) -> Result<(), String> {
        let due = |it: &&Issuance| !it.ended && it.exp.plus_millis(DUE_MS) < self.time;
        match self.issued.values().find(due) {
            Some(issuance) => Err(format!("{} has no ending, {} after its end", issuance.id, self.time)),
            None => Ok(()),
        }
    }

    pub(crate) fn bought(&self, proof: &Digest) -> bool {
        self.proofs.contains(proof)
    }

    pub(crate) fn asked(&self, request: &str) -> bool {
        self.requests.keys().any(|key| key.ends_with(request))
    }

    /// How many are called released.
    pub(crate) fn released(&self) -> usize {
        self.released.len()
    }

    pub(crate) fn unended(&self) -> usize {
        self.issued.values().filter(|it| !it.ended).count()
    }

    pub(crate) fn last_end(&self) -> Option<UnixMs> {
        self.issued.values().map(|it| it.exp).max()
    }

    pub(crate) fn time(&self) -> UnixMs {
        self.time
    }

    pub(crate) fn suspensions(&self) -> Vec<Index> {
        self.suspended.keys().copied().collect()
    }
}

fn selects(selector: &Selector, issued: &CredentialIssued) -> bool {
    selector.everything
        || selector.identity.as_ref() == Some(&issued.identity.name)
        || selector.task.as_ref() == Some(&issued.task.name)
}

fn check(holds: bool, failure: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(failure()) }
}
