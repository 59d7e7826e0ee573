//! One golden file for each kind and version: its bytes are the format. `DAYPASS_BLESS=1` writes them anew.

mod samples;

use std::fs;
use std::path::{Path, PathBuf};

use crate::canonical::is_canonical;
use crate::entry::{Body, Entry, KINDS, NewEntry};
use daypass_verify::time::UnixMs;
use samples::{TIME_MS, samples};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn file_name(entry: &NewEntry, variant: &str) -> String {
    let (kind, version) = entry.body.kind().unwrap();
    format!("{kind}{variant}.v{version}.json")
}

fn encode(entry: &NewEntry) -> Vec<u8> {
    entry.encode(UnixMs::new(TIME_MS), &"example.org".parse().unwrap(), &"b1".parse().unwrap()).unwrap()
}

fn read(entry: &NewEntry, variant: &str) -> Vec<u8> {
    let path = golden().join(file_name(entry, variant));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run with DAYPASS_BLESS=1", path.display()))
}

#[test]
fn an_entry_is_written_byte_for_byte_as_its_golden_file() {
    for (variant, entry) in samples() {
        let bytes = encode(&entry);
        if std::env::var_os("DAYPASS_BLESS").is_some() {
            fs::write(golden().join(file_name(&entry, variant)), &bytes).unwrap();
        }
        let expected = String::from_utf8(read(&entry, variant)).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), expected, "{}", file_name(&entry, variant));
    }
}

#[test]
fn a_golden_file_is_read_as_what_was_written() {
    for (variant, new) in samples() {
        let entry = Entry::read(&read(&new, variant)).unwrap();
        assert_eq!(entry.body, new.body);
        let envelope = entry.envelope;
        assert_eq!((envelope.id, envelope.request, envelope.by), (new.id, new.request, new.by));
        assert_eq!((envelope.kind.as_str(), envelope.v), new.body.kind().unwrap());
        assert_eq!(envelope.time, UnixMs::new(TIME_MS));
    }
}

#[test]
fn every_kind_has_a_golden_file_and_every_golden_file_a_kind() {
    let covered: Vec<_> = samples().iter().map(|(variant, entry)| file_name(entry, variant)).collect();
    for (kind, version) in KINDS {
        assert!(covered.contains(&format!("{kind}.v{version}.json")), "{kind}");
    }
    for file in fs::read_dir(golden()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(covered.contains(&name), "{name} has no sample");
    }
}

#[test]
fn a_field_of_another_type_is_refused_and_an_unknown_one_is_passed_over() {
    for (variant, new) in samples() {
        let text = String::from_utf8(read(&new, variant)).unwrap();
        let name = file_name(&new, variant);
        assert!(Entry::read(text.replacen("\"time\":", "\"time\":\"x", 1).as_bytes()).is_err(), "{name}");
        assert!(Entry::read(text.replacen(",\"td\":\"example.org\"", "", 1).as_bytes()).is_err(), "{name}");
        let wider = text.strip_suffix('}').unwrap().to_owned() + ",\"zzz\":{\"new\":[1]}}";
        assert_eq!(is_canonical(wider.as_bytes()), Ok(()), "{name}");
        assert_eq!(Entry::read(wider.as_bytes()).unwrap().body, new.body, "{name}");
    }
}

#[test]
fn a_later_version_and_an_unknown_kind_are_kept_as_they_came() {
    for (variant, new) in samples() {
        let text = String::from_utf8(read(&new, variant)).unwrap();
        let kind = new.body.kind().unwrap().0;
        for other in [text.replace("\"v\":1", "\"v\":2"), text.replace(kind, "future.kind")] {
            let entry = Entry::read(other.as_bytes()).unwrap();
            let Body::Unknown(fields) = entry.body else { panic!("{kind} was taken for a known kind") };
            let value: serde_json::Value = serde_json::from_str(&other).unwrap();
            assert_eq!(serde_json::Value::Object(fields), value);
        }
    }
}

#[test]
fn an_issuance_stays_under_2_kib_with_every_field_shown() {
    let (_, issued) =
        samples().into_iter().find(|(_, entry)| matches!(entry.body, Body::CredentialIssued(_))).unwrap();
    assert!(encode(&issued).len() < 2048);
}
