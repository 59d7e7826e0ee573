use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Instant;

use daypass_proto::v1;
use daypass_verify::scope::Scope;
use daypass_verify::time::UnixMs;
use secrecy::SecretString;

use super::*;
use crate::credential::{Grant, Receipt, Secret};
use crate::error::Refusal;
use crate::verify::tests::Log;

const CANARY: &str = "canary-3f9c1e7a5b";

/// What is granted to live so long.
pub(crate) fn granted(issued_at: UnixMs, life_ms: i64) -> Grant {
    Grant {
        subject: "spiffe://example.org/prod/billing/nightly".parse().unwrap(),
        task: "post-invoices".parse().unwrap(),
        scope: Scope::default(),
        issued_at,
        not_before: issued_at,
        expires_at: issued_at.plus_millis(life_ms),
        reach: v1::Reach::Feed,
    }
}

/// A credential of a fake: whole and well-formed, and signed by nobody.
fn credential(nth: u8, issued_at: UnixMs, life_ms: i64) -> Credential {
    let mut log = Log::new("example.org/evidence/2027h1");
    log.append(b"one");
    let newest = log.newest();
    Credential {
        id: CredentialId::new(issued_at, [nth; 10]),
        secret: Secret::Token { value: SecretString::from(CANARY), kind: "Bearer".into(), bound: None },
        granted: granted(issued_at, life_ms),
        narrowed: Vec::new(),
        renew_after: issued_at.plus_millis(life_ms * 2 / 3),
        receipt: Receipt {
            index: 0,
            leaf: newest.checkpoint.root,
            note: newest.note.to_vec(),
            checkpoint: newest.checkpoint,
            inclusion: Vec::new(),
        },
        request_id: None,
    }
}

pub(crate) fn refused(reason: &str) -> Error {
    let message = "no".to_owned();
    Error::AskForPermission(Refusal { reason: reason.into(), message, request_id: None })
}

/// The machine's clocks, which a test sets forward and puts to sleep.
#[derive(Debug)]
struct Hands {
    began: Instant,
    wall_ms: AtomicI64,
    slept_ms: AtomicI64,
}

impl Clock for Hands {
    fn now(&self) -> UnixMs {
        UnixMs::new(1_795_316_400_000 + self.boot_ms() + self.wall_ms.load(Ordering::SeqCst))
    }

    fn boot_ms(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap() + self.slept_ms.load(Ordering::SeqCst)
    }
}

/// An issuer in memory: what it says, and what it was asked.
pub(crate) struct Desk {
    clock: Arc<Hands>,
    life_ms: i64,
    refuses: Mutex<Option<Error>>,
    refuses_renewals: AtomicBool,
    proof: Mutex<Digest>,
    holder: Mutex<Digest>,
    asked: Mutex<Vec<Option<CredentialId>>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

impl Issues for Arc<Desk> {
    async fn issue(&self, request: IssueRequest) -> Result<Credential, Error> {
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        let nth = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(request.supersedes);
            u8::try_from(asked.len()).unwrap()
        };
        if request.supersedes.is_some() && self.refuses_renewals.load(Ordering::SeqCst) {
            return Err(refused("NOT_ALLOWED"));
        }
        match self.refuses.lock().unwrap().clone() {
            Some(error) => Err(error),
            None => {
                let mut issued = credential(nth, self.clock.now(), self.life_ms);
                let value = SecretString::from(CANARY);
                let bound = Some(self.holder());
                issued.secret = Secret::Token { value, kind: "Bearer".into(), bound };
                Ok(issued)
            }
        }
    }

    async fn proof_mark(&self) -> Option<Digest> {
        Some(*self.proof.lock().unwrap())
    }

    fn holder(&self) -> Digest {
        *self.holder.lock().unwrap()
    }
}

impl Desk {
    pub(crate) fn open(life_ms: i64) -> Arc<Self> {
        let clock =
            Hands { began: Instant::now(), wall_ms: AtomicI64::default(), slept_ms: AtomicI64::default() };
        Arc::new(Self {
            clock: Arc::new(clock),
            life_ms,
            refuses: Mutex::new(None),
            refuses_renewals: AtomicBool::default(),
            proof: Mutex::new(Digest::of(b"first")),
            holder: Mutex::new(Digest::of(b"holder")),
            asked: Mutex::default(),
            in_flight: AtomicUsize::default(),
            most_in_flight: AtomicUsize::default(),
        })
    }

    pub(crate) fn source(self: &Arc<Self>) -> CredentialSource {
        let request = IssueRequest::token("post-invoices".parse().unwrap());
        CredentialSource::of(Arc::clone(self), Arc::clone(&self.clock) as _, request, None)
    }

    /// A source that begins with a credential whose end is `left_ms` away by the wall clock, and `said_ms` as its user says.
    fn resumed(self: &Arc<Self>, left_ms: i64, said_ms: u64) -> (CredentialSource, Arc<Credential>) {
        let request = IssueRequest::token("post-invoices".parse().unwrap());
        let issued_at = self.clock.now().plus_millis(left_ms - self.life_ms);
        let held = Arc::new(credential(200, issued_at, self.life_ms));
        let held_so_long = Some((Arc::clone(&held), Duration::from_millis(said_ms)));
        let clock = Arc::clone(&self.clock) as _;
        (CredentialSource::of(Arc::clone(self), clock, request, held_so_long), held)
    }

    pub(crate) fn refuse(&self, error: impl Into<Option<Error>>) {
        *self.refuses.lock().unwrap() = error.into();
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

#[tokio::test]
async fn many_tasks_share_one_credential_and_one_request() {
    let desk = Desk::open(600_000);
    let source = desk.source();
    let asking = (0..64).map(|_| {
        let source = source.clone();
        tokio::spawn(async move { source.credential().await.unwrap().id })
    });
    let mut ids = Vec::new();
    for task in asking.collect::<Vec<_>>() {
        ids.push(task.await.unwrap());
    }
    ids.dedup();
    assert_eq!((ids.len(), desk.asked(), desk.most_in_flight.load(Ordering::SeqCst)), (1, 1, 1));
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_replaced_certificate_is_renewed_at_once_and_kept_where_that_fails() {
    let desk = Desk::open(600_000);
    let source = desk.source();
    let first = source.credential().await.unwrap();
    desk.refuse(refused("SUSPENDED"));
    *desk.holder.lock().unwrap() = Digest::of(b"another");
    eventually("it is asked for", || desk.asked() == 2).await;
    eventually("the refusal is known", || source.failure().is_some()).await;
    assert_eq!(source.credential().await.unwrap().id, first.id);
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!(desk.asked(), 2, "a refusal is waited out");

    desk.refuse(None);
    *desk.proof.lock().unwrap() = Digest::of(b"second");
    eventually("another one", || source.current().is_some_and(|it| it.id != first.id)).await;
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!(desk.asked(), 3, "once");
}

#[tokio::test]
async fn a_renewal_names_what_it_supersedes_and_followers_see_it() {
    let desk = Desk::open(1_000);
    let source = desk.source();
    let first = source.credential().await.unwrap();
    let mut changes = source.subscribe();
    changes.wait_for(|it| it.as_ref().is_some_and(|it| it.id != first.id)).await.unwrap();
    let asked = desk.asked.lock().unwrap().clone();
    assert_eq!(asked[..2], [None, Some(first.id)]);
    assert_eq!(desk.most_in_flight.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_was_revoked_is_not_renewed_but_replaced() {
    let desk = Desk::open(1_000);
    desk.refuses_renewals.store(true, Ordering::SeqCst);
    let source = desk.source();
    let first = source.credential().await.unwrap();
    let mut changes = source.subscribe();
    let next = changes.wait_for(|it| it.as_ref().is_none_or(|it| it.id != first.id)).await.unwrap().clone();
    assert!(next.is_some(), "there was none in between: {:?}", source.failure());
    assert_eq!(desk.asked.lock().unwrap()[..3], [None, Some(first.id), None]);
}

#[tokio::test]
async fn what_is_held_is_served_while_its_renewal_fails() {
    let desk = Desk::open(20_000);
    let source = desk.source();
    let first = source.credential().await.unwrap();
    desk.refuse(refused("SUSPENDED"));
    desk.clock.slept_ms.fetch_add(16_000, Ordering::SeqCst);
    eventually("a failure", || source.failure().is_some()).await;
    assert_eq!(source.credential().await.unwrap().id, first.id);
}

#[tokio::test]
async fn a_machine_that_slept_or_whose_clock_was_set_gets_another_one_and_never_the_one_that_is_over() {
    let hands: [fn(&Hands) -> &AtomicI64; 2] = [|it| &it.slept_ms, |it| &it.wall_ms];
    for hand in hands {
        let desk = Desk::open(600_000);
        let source = desk.source();
        let first = source.credential().await.unwrap();
        let moved = hand(&desk.clock);
        moved.fetch_add(600_000, Ordering::SeqCst);
        let second = source.credential().await.unwrap();
        assert_ne!(second.id, first.id);
        desk.refuse(refused("SUSPENDED"));
        moved.fetch_add(600_000, Ordering::SeqCst);
        let error = source.credential().await.unwrap_err();
        assert_eq!(error.refusal().unwrap().reason, "SUSPENDED");
        assert!(source.subscribe().borrow().is_none());
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_back_lengthens_no_life() {
    let desk = Desk::open(600_000);
    let source = desk.source();
    source.credential().await.unwrap();
    desk.refuse(refused("SUSPENDED"));
    desk.clock.wall_ms.fetch_sub(3_600_000, Ordering::SeqCst);
    desk.clock.slept_ms.fetch_add(600_000, Ordering::SeqCst);
    source.credential().await.unwrap_err();
}

#[tokio::test]
async fn a_refusal_is_told_at_once_and_asked_about_again_when_the_proof_is_another() {
    let desk = Desk::open(600_000);
    desk.refuse(refused("TASK_NOT_ALLOWED"));
    let source = desk.source();
    for _ in 0..20 {
        let error = source.credential().await.unwrap_err();
        assert_eq!(error.refusal().unwrap().reason, "TASK_NOT_ALLOWED");
    }
    assert_eq!(desk.asked(), 1);
    desk.refuse(None);
    *desk.proof.lock().unwrap() = Digest::of(b"second");
    eventually("another attempt", || source.failure().is_none()).await;
    source.credential().await.unwrap();
}

#[tokio::test]
async fn what_is_over_when_it_arrives_is_no_credential() {
    let desk = Desk::open(0);
    let error = desk.source().credential().await.unwrap_err();
    assert!(error.to_string().contains("compare the clocks"), "{error}");
}

#[tokio::test]
async fn the_task_ends_with_the_last_clone() {
    let desk = Desk::open(600_000);
    let source = desk.source();
    let other = source.clone();
    drop(source);
    other.credential().await.unwrap();
    drop(other);
    eventually("the task has ended", || Arc::strong_count(&desk) == 1).await;
}

#[tokio::test]
async fn nothing_that_a_source_says_shows_a_secret() {
    let desk = Desk::open(600_000);
    let source = desk.source();
    let held = source.credential().await.unwrap();
    let layer =
        crate::TokenLayer::to(source.clone(), &"https://ledger.example.org".parse().unwrap()).unwrap();
    let resolver = crate::SourceCertificate::new(source.clone());
    let value = source.authorization().await.unwrap();
    desk.refuse(refused("SUSPENDED"));
    desk.clock.slept_ms.fetch_add(600_000, Ordering::SeqCst);
    let error = source.credential().await.unwrap_err();
    let mut key = credential(1, UnixMs::new(0), 1);
    key.secret = Secret::Certificate { chain: Vec::new(), roots: Vec::new(), key: Some(CANARY.into()) };
    let said = format!("{source:?} {held:?} {layer:?} {resolver:?} {value:?} {error:?} {error} {key:?}");
    assert!(!said.contains(CANARY), "{said}");
    let changes = source.subscribe();
    assert!(!format!("{changes:?} {:?}", desk.source()).contains(CANARY));
    let fresh = Desk::open(600_000).source();
    fresh.credential().await.unwrap();
    assert!(!format!("{fresh:?}").contains(CANARY));
}

#[tokio::test]
async fn what_was_held_before_is_served_at_once_and_renewed_by_its_name() {
    let desk = Desk::open(600_000);
    let (source, held) = desk.resumed(300_000, 300_000);
    assert_eq!(source.current().unwrap().id, held.id);
    assert_eq!(source.subscribe().borrow().as_ref().unwrap().id, held.id);
    let mut changes = source.subscribe();
    changes.wait_for(|it| it.as_ref().is_some_and(|it| it.id != held.id)).await.unwrap();
    assert_eq!(desk.asked.lock().unwrap()[0], Some(held.id));
}

#[tokio::test]
async fn what_was_held_before_is_served_to_its_end_and_never_after_by_any_clock() {
    let desk = Desk::open(600_000);
    desk.refuse(refused("SUSPENDED"));
    for (left_ms, said_ms) in
        [(4_000, 600_000), (600_000, 4_000), (-1, 600_000), (600_000, 0), (5_000, 5_000)]
    {
        let (source, _) = desk.resumed(left_ms, said_ms);
        assert!(source.current().is_none(), "{left_ms} {said_ms}");
        source.credential().await.unwrap_err();
    }
    let hands: [fn(&Hands) -> &AtomicI64; 2] = [|it| &it.slept_ms, |it| &it.wall_ms];
    for hand in hands {
        let (source, held) = desk.resumed(300_000, 200_000);
        eventually("a failure", || source.failure().is_some()).await;
        assert_eq!(source.credential().await.unwrap().id, held.id);
        hand(&desk.clock).fetch_add(195_000, Ordering::SeqCst);
        assert!(source.current().is_none());
        source.credential().await.unwrap_err();
        eventually("followers are told", || source.subscribe().borrow().is_none()).await;
    }
}
