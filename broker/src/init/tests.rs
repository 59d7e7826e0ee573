use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Barrier;

use super::*;
use crate::clock::SystemClock;

fn run(store: &Path, kek: &Path) -> Result<Initialised, InitError> {
    let deployment = Deployment {
        trust_domain: "example.org".parse().unwrap(),
        broker: "b1".parse().unwrap(),
        store: &store.into(),
        kek,
        bundle: None,
        clock: Arc::new(SystemClock),
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(init(&deployment))
}

#[test]
fn of_two_that_make_one_store_at_once_one_does_and_its_store_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (store, kek) = (folder.path().join("store"), folder.path().join("kek"));
    Kek::create(&kek).unwrap();
    let (store, kek, start) = (store.as_path(), kek.as_path(), &Barrier::new(4));
    let made = std::thread::scope(|scope| {
        let each = [(); 4].map(|()| {
            scope.spawn(move || {
                start.wait();
                run(store, kek)
            })
        });
        each.map(|one| one.join().unwrap())
    });
    let exists = |one: &Result<_, _>| matches!(one, Err(InitError::Exists(_)));
    assert_eq!(made.iter().filter(|one| exists(one)).count(), 3, "{made:?}");
    let made = made.into_iter().find_map(Result::ok).unwrap();
    let reader = StoreAt::from(store).reader().unwrap();
    log::verify_store(reader.as_ref(), &made.log_key, None).unwrap();
    assert_eq!(std::fs::metadata(store).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_fails_leaves_no_store_and_touches_none_that_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    std::fs::write(path("kek"), "readable by all").unwrap();
    std::fs::set_permissions(path("kek"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(run(&path("store"), &path("kek")), Err(InitError::Kek(_))));
    assert!(!path("store").exists());

    std::fs::write(path("store"), "somebody else's").unwrap();
    assert!(matches!(run(&path("store"), &path("kek")), Err(InitError::Exists(_))));
    assert_eq!(std::fs::read_to_string(path("store")).unwrap(), "somebody else's");
}
