//! Notes against another implementation, and spoiled one thing at a time.

use proptest::prelude::*;
use ring::rand::SystemRandom;
use signed_note::{Note, StandardVerifier, VerifierList};

use super::*;

const NAME: &str = "example.org/evidence/2026-2";
const TEXT: &str = "example.org/evidence/2026-2\n5\nAAAA\n\nmore\n";

fn key() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
}

fn check(note: &str, keys: &[&VerifierKey]) -> Result<String, NoteError> {
    let keys: Vec<_> = keys.iter().copied().cloned().collect();
    verify(note.as_bytes(), &keys).map(str::to_owned)
}

#[test]
fn another_implementation_accepts_our_notes_and_keys() {
    let key = key();
    let verifier = VerifierKey::of(NAME, &key).unwrap();
    let note = sign(TEXT, NAME, &key).unwrap();
    let known = VerifierList::new(vec![Box::new(StandardVerifier::new(&verifier.to_string()).unwrap())]);
    let parsed = Note::from_bytes(note.as_bytes()).unwrap();
    assert_eq!(parsed.verify(&known).unwrap().0.len(), 1);
    assert_eq!(parsed.text(), TEXT.as_bytes());
}

#[test]
fn signatures_of_strangers_are_passed_over() {
    let (own, other) = (key(), key());
    let verifier = VerifierKey::of(NAME, &own).unwrap();
    let note = sign(TEXT, NAME, &own).unwrap();
    let theirs = sign(TEXT, "witness.example/w1", &other).unwrap();
    let line = theirs.rsplit_once("\n\n").unwrap().1;
    let unknown_type = format!("\u{2014} witness.example/w2 {}\n", STANDARD.encode([9; 77]));
    assert_eq!(check(&format!("{note}{line}{unknown_type}"), &[&verifier]).unwrap(), TEXT);
    assert_eq!(check(&theirs, &[&verifier]), Err(NoteError::Unsigned));
    assert_eq!(check(&note, &[]), Err(NoteError::Unsigned));
    // The same name with another key is a stranger too.
    assert_eq!(check(&sign(TEXT, NAME, &other).unwrap(), &[&verifier]), Err(NoteError::Unsigned));
}

#[test]
fn a_key_that_signs_twice_is_refused() {
    let key = key();
    let verifier = VerifierKey::of(NAME, &key).unwrap();
    let note = sign(TEXT, NAME, &key).unwrap();
    let line = note.rsplit_once("\n\n").unwrap().1;
    assert_eq!(check(&format!("{note}{line}"), &[&verifier]), Err(NoteError::SignedTwice(NAME.into())));
}

#[test]
fn a_note_of_another_form_is_refused() {
    let key = key();
    let verifier = VerifierKey::of(NAME, &key).unwrap();
    let note = sign(TEXT, NAME, &key).unwrap();
    let line = note.rsplit_once("\n\n").unwrap().1.to_owned();
    let spoiled = [
        note.replacen('5', "6", 1),
        note.trim_end().to_owned(),
        note.replace('\u{2014}', "-"),
        note.replace("\n\n\u{2014}", "\n\u{2014}"),
        format!("{note}\n"),
        format!("{note}x\n"),
        format!("\t{note}"),
        format!("{note}\u{2014}  AAAAAAA=\n"),
        format!("{note}\u{2014} w AAAA\n"),
        format!("{note}\u{2014} w !!!!\n"),
        format!("\n\n{line}"),
        format!("{note}{}", format!("\u{2014} w {}\n", STANDARD.encode([9; 68])).repeat(MAX_SIGNATURES)),
        format!("{}{note}", "x\n".repeat(MAX_NOTE)),
        String::new(),
    ];
    for note in spoiled {
        assert!(check(&note, &[&verifier]).is_err(), "{note:?}");
    }
    assert!(sign("no line feed", NAME, &key).is_err());
    assert!(sign("tab\t\n", NAME, &key).is_err());
    assert!(sign(TEXT, "a b", &key).is_err() && sign(TEXT, "a+b", &key).is_err());
}

#[test]
fn a_verifier_key_has_one_spelling() {
    let verifier = VerifierKey::of(NAME, &key()).unwrap();
    let text = verifier.to_string();
    assert_eq!(text.parse::<VerifierKey>().unwrap(), verifier);
    let (name, id, public) = (
        text.split('+').next().unwrap(),
        text.split('+').nth(1).unwrap(),
        text.splitn(3, '+').nth(2).unwrap(),
    );
    let short = STANDARD.encode([1; 32]);
    let other_type = STANDARD.encode([2; 33]);
    for bad in [
        format!("other+{id}+{public}"),
        format!("{name}+00000000+{public}"),
        format!("{name}+{}+{public}", id.to_uppercase() + "0"),
        format!("{name}+{id}+{short}"),
        format!("{name}+{id}+{other_type}"),
        format!("{name}+{id}"),
        format!("+{id}+{public}"),
        String::new(),
    ] {
        assert!(bad.parse::<VerifierKey>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_other_byte_passes(at in 0_usize..300, flip in 1_u8..) {
        let key = key();
        let verifier = VerifierKey::of(NAME, &key).unwrap();
        let mut note = sign(TEXT, NAME, &key).unwrap().into_bytes();
        let at = at % note.len();
        note[at] ^= flip;
        prop_assert!(verify(&note, &[verifier]).is_err());
    }
}
