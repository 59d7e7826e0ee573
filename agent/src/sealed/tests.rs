use std::fs::{Permissions, set_permissions, write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

use daypass_evidence::checkpoint::Checkpoint;
use daypass_sdk::{Credential, Grant, Reach, Receipt, Secret};
use daypass_verify::scope::Scope;
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;

use super::*;

const TOKEN: &str = "canary-3f9c1e7a5b.canary-3f9c1e7a5b";
const HOLDER: &str = "canary-77ab01c2d3";
/// How long the credential of a test lives.
const LIFE_MS: i64 = 600_000;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn token(id: u8, issued_at: daypass_verify::time::UnixMs) -> Fresh {
    let granted = Grant {
        subject: "spiffe://example.org/prod/billing/nightly".parse().unwrap(),
        task: name("post-invoices"),
        scope: Scope::default(),
        issued_at,
        not_before: issued_at,
        expires_at: issued_at.plus_millis(LIFE_MS),
        reach: Reach::Feed,
    };
    let bound = Some(Digest::of(b"holder"));
    let checkpoint = Checkpoint { origin: "example.org/evidence/2027h1".into(), size: 7, root: [3; 32] };
    let receipt = Receipt {
        index: 6,
        leaf: [5; 32],
        checkpoint,
        note: b"a note\n".to_vec(),
        inclusion: vec![[1; 32], [2; 32]],
    };
    let credential = Credential {
        id: CredentialId::new(issued_at, [id; 10]),
        secret: Secret::Token { value: TOKEN.into(), kind: "Bearer".into(), bound },
        granted,
        narrowed: vec!["ttl".into()],
        renew_after: issued_at.plus_millis(LIFE_MS * 2 / 3),
        receipt,
        request_id: Some("r-1".into()),
    };
    Fresh { credential: Arc::new(credential), holder: Some(SecretString::from(HOLDER)) }
}

/// A folder with a proof, a key, and what the agent is told of both.
struct Bench {
    top: TempDir,
    request: IssueRequest,
}

impl Bench {
    fn new() -> Self {
        let bench =
            Self { top: tempfile::tempdir().unwrap(), request: IssueRequest::token(name("post-invoices")) };
        bench.prove("nightly");
        bench.key([7; 32], 0o600);
        bench
    }

    fn at(&self, name: &str) -> PathBuf {
        self.top.path().join(name)
    }

    fn prove(&self, who: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let uri = format!("spiffe://example.org/{who}").try_into().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(uri)];
        write(self.at("proof.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    }

    fn key(&self, bytes: [u8; 32], mode: u32) {
        write(self.at("key"), bytes).unwrap();
        set_permissions(self.at("key"), Permissions::from_mode(mode)).unwrap();
    }

    fn vault(&self, names: &[&str]) -> Option<Vault> {
        let text = "broker = \"https://b.example:8443\"\nweb = \"https://d.example\"\nca = \"ca.pem\"\n\
                    cert = \"proof.pem\"\nkey = \"proof.key\"\n[[credential]]\ntask = \"t\"\nfiles = { dir = \"o\" }\n\
                    [sealed]\ndir = \"sealed\"\nkey_file = \"key\"\n";
        let config = crate::config::Config::parse(text, self.top.path()).unwrap();
        let names: Vec<Name> = names.iter().map(|it| name(it)).collect();
        Vault::open(config.sealed.as_ref(), &config.connection, &names.iter().collect::<Vec<_>>())
    }

    fn slot(&self, called: &str) -> Slot {
        self.vault(&["one", "two"]).unwrap().slot(&name(called), &self.request)
    }

    fn file(&self) -> PathBuf {
        self.at("sealed/one.sealed")
    }

    async fn seal(&self, fresh: Fresh) {
        self.slot("one").seal(Arc::new(fresh)).await.unwrap();
    }

    fn open(&self) -> Option<Resumed> {
        self.slot("one").open(Digest::of(b"another holder"))
    }
}

#[tokio::test]
async fn what_was_sealed_is_whole_after_a_restart_and_shows_nothing_meanwhile() {
    let bench = Bench::new();
    bench.seal(token(1, now())).await;
    let opened = bench.open().unwrap();
    let (expected, found) = (token(1, now()).credential, &opened.fresh.credential);
    assert_eq!(
        (found.granted.task.clone(), found.narrowed.clone()),
        (expected.granted.task.clone(), expected.narrowed.clone())
    );
    assert_eq!((&found.receipt, &found.request_id), (&expected.receipt, &expected.request_id));
    let Secret::Token { value, kind, bound } = &found.secret else { panic!("{found:?}") };
    assert_eq!(
        (value.expose_secret(), kind.as_str(), *bound),
        (TOKEN, "Bearer", Some(Digest::of(b"holder")))
    );
    assert_eq!(opened.fresh.holder.unwrap().expose_secret(), HOLDER);
    let left_ms = i64::try_from(opened.left.as_millis()).unwrap();
    assert!((LIFE_MS - 60_000..=LIFE_MS).contains(&left_ms), "{left_ms}");
    let bytes = fs::read(bench.file()).unwrap();
    for secret in [TOKEN, HOLDER, "nightly"] {
        let seen = bytes.windows(secret.len()).any(|it| it == secret.as_bytes());
        assert!(!seen, "`{secret}` is in the file");
    }
    let found = fs::metadata(bench.file()).unwrap();
    assert_eq!(
        (found.mode() & 0o7777, fs::metadata(bench.at("sealed")).unwrap().mode() & 0o7777),
        (0o600, 0o700)
    );
}

#[tokio::test]
async fn a_certificate_comes_back_with_its_key_its_chain_and_its_roots() {
    let mut bench = Bench::new();
    bench.request = IssueRequest::certificate(name("post-invoices"));
    let pem = fs::read_to_string(bench.at("proof.pem")).unwrap();
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut fresh = token(1, now());
    let made = Arc::get_mut(&mut fresh.credential).unwrap();
    made.secret = Secret::Certificate {
        chain: vec![der.clone(), der.clone()],
        roots: vec![der.clone()],
        key: Some(TOKEN.into()),
    };
    fresh.holder = None;
    bench.seal(fresh).await;
    let opened = bench.open().unwrap();
    let Secret::Certificate { chain, roots, key } = &opened.fresh.credential.secret else { panic!() };
    assert_eq!((chain.len(), &chain[1], roots.as_slice()), (2, &der, &[der.clone()][..]));
    assert_eq!(key.as_ref().unwrap().expose_secret(), TOKEN);
    assert!(opened.fresh.holder.is_none());
}

/// Spoils what is sealed, and says what is said of it and whether the file stays.
type Spoiled = (&'static str, fn(&mut Bench), Option<Unfit>, bool);

#[tokio::test]
async fn nothing_that_was_spoiled_is_given_out_and_the_rest_goes_on() {
    let flip = |bench: &Bench, at: usize| {
        let mut bytes = fs::read(bench.file()).unwrap();
        let at = if at == usize::MAX { bytes.len() - 1 } else { at };
        bytes[at] ^= 1;
        write(bench.file(), bytes).unwrap();
    };
    for at in [0, 16, 24, 56, 68, 72, 200, usize::MAX] {
        let bench = Bench::new();
        bench.seal(token(1, now())).await;
        flip(&bench, at);
        assert!(bench.open().is_none(), "octet {at}");
    }
    let spoiled: &[Spoiled] = &[
        ("nothing", |_| {}, None, true),
        ("another key", |it| it.key([8; 32], 0o600), Some(Unfit::AnotherKey), true),
        (
            "cut off",
            |it| write(it.file(), &fs::read(it.file()).unwrap()[..120]).unwrap(),
            Some(Unfit::Damaged),
            false,
        ),
        (
            "cut off early",
            |it| write(it.file(), &fs::read(it.file()).unwrap()[..30]).unwrap(),
            Some(Unfit::Damaged),
            false,
        ),
        ("empty", |it| write(it.file(), "").unwrap(), Some(Unfit::Damaged), false),
        (
            "longer",
            |it| write(it.file(), [fs::read(it.file()).unwrap(), vec![0]].concat()).unwrap(),
            Some(Unfit::Damaged),
            false,
        ),
        (
            "another version",
            |it| {
                write(
                    it.file(),
                    [b"daypass sealed 2".to_vec(), fs::read(it.file()).unwrap()[16..].to_vec()].concat(),
                )
                .unwrap()
            },
            Some(Unfit::Version),
            false,
        ),
        ("a random file", |it| write(it.file(), vec![9; 4096]).unwrap(), Some(Unfit::Version), false),
        ("another task", |it| it.request.task = name("read-invoices"), Some(Unfit::AnotherRequest), false),
        (
            "another identity",
            |it| it.request.identity = Some("prod/billing/other".parse().unwrap()),
            Some(Unfit::AnotherRequest),
            false,
        ),
        (
            "another kind",
            |it| it.request.kind = IssueRequest::certificate(name("t")).kind,
            Some(Unfit::AnotherRequest),
            false,
        ),
        (
            "another scope",
            |it| it.request.scope.actions = ["invoice:read".parse().unwrap()].into(),
            Some(Unfit::AnotherRequest),
            false,
        ),
        (
            "another workload",
            |it| it.request.workload = Some(daypass_sdk::Workload { uid: 7, ..Default::default() }),
            Some(Unfit::AnotherRequest),
            false,
        ),
        ("another proof", |it| it.prove("somebody"), Some(Unfit::AnotherRequest), false),
        ("the same proof anew", |it| it.prove("nightly"), None, true),
    ];
    for (what, spoil, expected, stays) in spoiled {
        let mut bench = Bench::new();
        bench.seal(token(1, now())).await;
        spoil(&mut bench);
        let slot = bench.slot("one");
        let file = fs::read(bench.file()).unwrap();
        let said = slot.try_open(&file, Digest::of(b"holder")).err().map(|(_, why)| why);
        assert_eq!(said, expected.map(|it| it.to_string()), "{what}");
        drop(slot);
        assert_eq!(bench.open().is_some(), expected.is_none(), "{what}");
        assert_eq!(bench.file().exists(), *stays, "{what}");
    }
}

#[tokio::test]
async fn a_file_of_another_credential_is_no_file_of_this_one() {
    let bench = Bench::new();
    bench.slot("two").seal(Arc::new(token(2, now()))).await.unwrap();
    fs::rename(bench.at("sealed/two.sealed"), bench.file()).unwrap();
    let said = bench.slot("one").try_open(&fs::read(bench.file()).unwrap(), Digest::of(b"holder"));
    assert_eq!(said.err().unwrap().1, Unfit::Damaged.to_string());
}

#[tokio::test]
async fn a_clock_that_was_behind_gives_no_credential_a_longer_life() {
    let bench = Bench::new();
    bench.seal(token(1, now().plus_millis(25_000))).await;
    let left = bench.open().unwrap().left;
    assert!(left.as_millis() <= LIFE_MS.unsigned_abs().into(), "{left:?}");
}

#[tokio::test]
async fn what_is_over_or_bound_to_what_is_gone_is_not_given_out() {
    let moved = |by_ms: i64| token(1, now().plus_millis(by_ms));
    for (what, fresh, expected) in [
        ("over", moved(-LIFE_MS), Unfit::Over),
        ("four seconds before its end", moved(4_000 - LIFE_MS), Unfit::Over),
        ("bound to a certificate of before", Fresh { holder: None, ..moved(0) }, Unfit::AnotherHolder),
    ] {
        let bench = Bench::new();
        bench.seal(fresh).await;
        let file = fs::read(bench.file()).unwrap();
        let said = bench.slot("one").try_open(&file, Digest::of(b"another holder")).err().map(|(_, why)| why);
        assert_eq!(said, Some(expected.to_string()), "{what}");
        assert!(bench.open().is_none() && !bench.file().exists(), "{what}");
    }
    let bench = Bench::new();
    bench.seal(Fresh { holder: None, ..moved(0) }).await;
    assert!(
        bench.slot("one").open(Digest::of(b"holder")).is_some(),
        "the agent's own certificate is still there"
    );
}

#[tokio::test]
async fn a_slot_follows_what_is_kept_and_holds_nothing_that_ended() {
    let bench = Bench::new();
    let (sender, changes) = tokio::sync::watch::channel(None);
    let keeping = tokio::spawn(bench.slot("one").keep(changes));
    let wait = async |what: &str, holds: &dyn Fn() -> bool| {
        for _ in 0..500 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within 5 s: {what}");
    };
    sender.send_replace(Some(Arc::new(token(1, now()))));
    wait("the first", &|| bench.file().exists()).await;
    let first = fs::read(bench.file()).unwrap();
    sender.send_replace(Some(Arc::new(token(2, now()))));
    wait("the second", &|| fs::read(bench.file()).unwrap() != first).await;
    sender.send_replace(None);
    wait("the end", &|| !bench.file().exists()).await;
    sender.send_replace(Some(Arc::new(token(3, now()))));
    wait("another", &|| bench.file().exists()).await;
    drop(sender);
    keeping.await.unwrap();
    assert!(bench.vault(&["two"]).is_some());
    assert!(!bench.file().exists(), "it is no longer configured");
}

#[tokio::test]
async fn a_key_or_a_directory_that_cannot_be_used_leaves_all_as_without() {
    type Spoiled = (&'static str, fn(&Bench));
    let spoiled: &[Spoiled] = &[
        ("no key", |it| fs::remove_file(it.at("key")).unwrap()),
        ("a short key", |it| write(it.at("key"), [1; 31]).unwrap()),
        ("a long key", |it| write(it.at("key"), [1; 33]).unwrap()),
        ("a directory that others may write", |it| {
            fs::create_dir(it.at("sealed")).unwrap();
            set_permissions(it.at("sealed"), Permissions::from_mode(0o777)).unwrap();
        }),
        ("a link for a directory", |it| symlink("/tmp", it.at("sealed")).unwrap()),
    ];
    for (what, spoil) in spoiled {
        let bench = Bench::new();
        spoil(&bench);
        assert!(bench.vault(&[]).is_none(), "{what}");
    }
    let bench = Bench::new();
    let first = bench.vault(&[]).unwrap();
    assert!(bench.vault(&[]).is_none(), "two agents in one directory");
    drop(first);
    bench.vault(&[]).unwrap();
}

#[test]
fn a_key_that_others_may_read_is_an_error_of_the_configuration() {
    let bench = Bench::new();
    for (mode, fits) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o666, false)] {
        bench.key([7; 32], mode);
        assert_eq!(Key::read(&bench.at("key")).is_ok(), fits, "{mode:o}");
        let text = format!("[sealed]\ndir = \"s\"\nkey_file = {:?}\n", bench.at("key"));
        let faults = crate::config::Config::parse(&text, Path::new("/etc")).unwrap_err();
        let said = faults.iter().any(|it| {
            it.line == 3 && it.message.contains("`key_file`: ") && it.message.contains("0600 or 0400")
        });
        assert_eq!(said, !fits, "{mode:o}: {faults:?}");
    }
}
