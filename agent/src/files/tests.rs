use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink};

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempfile::TempDir;

use super::*;

fn id(number: u8) -> CredentialId {
    format!("0199f2c1-0000-7000-8000-0000000000{number:02x}").parse().unwrap()
}

fn pair(text: &str) -> Vec<File> {
    vec![
        ("tls.crt", format!("certificate {text}").into_bytes()),
        ("tls.key", format!("key {text}").into_bytes()),
    ]
}

fn place() -> (TempDir, Directory) {
    let top = tempfile::tempdir().unwrap();
    let directory = Directory::new(top.path().join("out"), None);
    (top, directory)
}

fn read(directory: &Directory, name: &str) -> String {
    std::fs::read_to_string(directory.path().join(name)).unwrap()
}

fn names(directory: &Directory) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn certificate_and_key_are_replaced_together_and_the_old_ones_go_after_a_while() {
    let (_top, directory) = place();
    directory.replace(id(1), &pair("one")).unwrap();
    let on_the_way = std::fs::canonicalize(directory.path().join(CURRENT)).unwrap();
    directory.replace(id(2), &pair("two")).unwrap();
    assert_eq!(
        (read(&directory, "tls.crt"), read(&directory, "tls.key")),
        ("certificate two".into(), "key two".into())
    );
    assert_eq!(std::fs::read_to_string(on_the_way.join("tls.key")).unwrap(), "key one");
    directory.sweep().unwrap();
    assert!(!on_the_way.exists());
    assert_eq!(
        names(&directory),
        [format!(".{}", id(2)), "current".into(), "tls.crt".into(), "tls.key".into()]
    );
}

#[test]
fn files_are_for_their_owner_alone_whatever_was_there() {
    let (_top, directory) = place();
    std::fs::create_dir(directory.path()).unwrap();
    directory.replace(id(1), &pair("one")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        let found = std::fs::metadata(directory.path().join(name)).unwrap();
        assert_eq!((found.mode() & 0o7777, found.nlink()), (0o600, 1));
    }
    let folder = std::fs::metadata(directory.path().join(CURRENT)).unwrap();
    assert_eq!(folder.mode() & 0o7777, 0o700);
}

#[test]
fn a_credential_that_ended_is_absent_under_every_name() {
    let (_top, directory) = place();
    directory.replace(id(1), &pair("one")).unwrap();
    directory.clear().unwrap();
    directory.clear().unwrap();
    assert_eq!(names(&directory), ["tls.crt", "tls.key"]);
    for name in ["tls.crt", "tls.key", CURRENT] {
        let error = std::fs::read(directory.path().join(name)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
    directory.replace(id(2), &pair("two")).unwrap();
    assert_eq!(read(&directory, "tls.key"), "key two");
}

#[test]
fn what_a_cut_off_attempt_left_is_in_nobodys_way() {
    let (_top, directory) = place();
    directory.replace(id(1), &pair("one")).unwrap();
    let half = directory.path().join(format!(".{}", id(2)));
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("tls.crt"), "half").unwrap();
    symlink("nowhere", directory.path().join(NEXT)).unwrap();
    assert_eq!(read(&directory, "tls.crt"), "certificate one");
    directory.replace(id(2), &pair("two")).unwrap();
    assert_eq!(read(&directory, "tls.key"), "key two");
    std::fs::create_dir(directory.path().join(format!(".{}", id(3)))).unwrap();
    directory.sweep().unwrap();
    assert_eq!(names(&directory).len(), 4);
}

#[test]
fn however_often_they_are_replaced_two_are_there_at_most() {
    let (_top, directory) = place();
    for number in 1..10 {
        directory.replace(id(number), &pair("one")).unwrap();
    }
    assert_eq!(names(&directory).iter().filter(|name| name.starts_with('.')).count(), 2);
    directory.close().unwrap();
    assert!(directory.replace(id(11), &pair("late")).is_err(), "nothing comes after the end");
    assert!(!directory.path().join("tls.key").exists());
}

/// Puts something in the way, and says what the error must contain.
type Spoiled = (fn(&Path), &'static str);

#[test]
fn a_place_that_others_could_change_is_refused_and_nothing_is_written() {
    let spoiled: &[Spoiled] = &[
        (|out| symlink("/tmp", out).unwrap(), "a link, or no directory"),
        (|out| std::fs::write(out, "file").unwrap(), "a link, or no directory"),
        (
            |out| {
                std::fs::DirBuilder::new().mode(0o700).create(out).and_then(|()| chmod(out, 0o770)).unwrap()
            },
            "others may write",
        ),
        (|out| chmod(out.parent().unwrap(), 0o777).unwrap(), "others may write"),
        (|out| std::fs::remove_dir(out.parent().unwrap()).unwrap(), "is not there"),
    ];
    for (spoil, expected) in spoiled {
        let top = tempfile::tempdir().unwrap();
        let parent = top.path().join("parent");
        std::fs::create_dir(&parent).unwrap();
        chmod(&parent, 0o755).unwrap();
        let directory = Directory::new(parent.join("out"), None);
        spoil(directory.path());
        let error = directory.replace(id(1), &pair("one")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: expected {expected}");
        assert!(!directory.path().join("tls.key").exists());
    }
}

fn chmod(path: &Path, mode: u32) -> std::io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[test]
fn a_link_on_the_way_is_refused() {
    let top = tempfile::tempdir().unwrap();
    std::fs::create_dir(top.path().join("real")).unwrap();
    symlink(top.path().join("real"), top.path().join("link")).unwrap();
    let error = Directory::new(top.path().join("link/out"), None).replace(id(1), &pair("one")).unwrap_err();
    assert!(error.to_string().contains("/link`: a link"), "{error}");
    let error = Directory::new(top.path().join("real/../real/out"), None).replace(id(1), &[]).unwrap_err();
    assert!(error.to_string().contains("without `..`"), "{error}");
}

#[test]
fn whatever_else_has_a_name_is_never_written_through_or_replaced() {
    let put: &[fn(&Path)] = &[
        |at| std::fs::write(at, "precious").unwrap(),
        |at| symlink("/dev/null", at).unwrap(),
        |at| symlink("current/other", at).unwrap(),
        |at| std::fs::create_dir(at).unwrap(),
        |at| rustix::fs::mkfifoat(rustix::fs::CWD, at, Mode::from_raw_mode(0o600)).unwrap(),
        |at| {
            std::fs::write(at.with_extension("other"), "precious").unwrap();
            std::fs::hard_link(at.with_extension("other"), at).unwrap();
        },
    ];
    for (number, put) in put.iter().enumerate() {
        let (_top, directory) = place();
        directory.replace(id(1), &pair("one")[..1]).unwrap();
        let at = directory.path().join("tls.key");
        put(&at);
        let before = std::fs::symlink_metadata(&at).unwrap();
        let error = directory.replace(id(2), &pair("two")).unwrap_err();
        assert!(error.to_string().contains("/tls.key`: something else is in the way"), "{number}: {error}");
        let after = std::fs::symlink_metadata(&at).unwrap();
        assert_eq!((before.ino(), before.len(), before.mode()), (after.ino(), after.len(), after.mode()));
        assert_eq!(read(&directory, "tls.crt"), "certificate one");
    }
    let (_top, directory) = place();
    std::fs::create_dir(directory.path()).unwrap();
    std::fs::create_dir(directory.path().join(CURRENT)).unwrap();
    assert!(
        directory.replace(id(1), &pair("one")).unwrap_err().to_string().contains("/current`: something else")
    );
}

#[test]
fn readers_in_between_always_find_a_pair() {
    let (_top, directory) = place();
    directory.replace(id(0), &pair("0")).unwrap();
    let (stop, pairs) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let folder = std::fs::File::open(directory.path().join(CURRENT)).unwrap();
                let at = |name: &str| {
                    let file = openat(&folder, name, OFlags::RDONLY, Mode::empty()).unwrap();
                    std::io::read_to_string(std::fs::File::from(file)).unwrap()
                };
                let (certificate, key) = (at("tls.crt"), at("tls.key"));
                assert_eq!(
                    certificate.strip_prefix("certificate ").unwrap(),
                    key.strip_prefix("key ").unwrap()
                );
                pairs.fetch_add(1, Ordering::SeqCst);
            }
        });
        for number in 1..100 {
            // One replacement at most falls into one reading: they are further apart than that.
            let before = pairs.load(Ordering::SeqCst);
            while pairs.load(Ordering::SeqCst) == before && !reading.is_finished() {
                std::thread::yield_now();
            }
            directory.replace(id(number), &pair(&number.to_string())).unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        reading.join().unwrap();
    });
}

#[test]
fn a_shared_parent_is_taken_where_it_is_said_to_be_one() {
    let top = tempfile::tempdir().unwrap();
    let volume = top.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    chmod(&volume, 0o777).unwrap();
    let directory = Directory::new(volume.join("out"), None);
    assert!(directory.replace(id(1), &pair("one")).is_err());
    let directory = Directory { shared_parent: true, ..directory };
    directory.replace(id(1), &pair("one")).unwrap();
    assert_eq!(read(&directory, "tls.key"), "key one");
    chmod(directory.path(), 0o777).unwrap();
    assert!(directory.replace(id(2), &pair("two")).is_err(), "its own directory is never shared");
}
