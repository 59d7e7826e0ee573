//! PostgreSQL: tables in a database of their own, several writers that really fight, and what must be refused.

use daypass_broker::store::postgres::PostgresStore;
use daypass_broker::store::{Batch, Reader, Sealer, Store, StoreError};
use daypass_tests::harness::postgres::{Database, Postgres};

use super::Place;
use super::samples::{NOON, batch, head, open_log, row};

/// Tables that `init` would make, without a log.
pub(super) struct Tables(Database<'static>);

impl Tables {
    pub(super) fn new() -> Self {
        let database = Postgres::shared().any_database();
        drop(database.at().claim().unwrap().expect("it is empty"));
        Self(database)
    }

    /// Tables with a log of two entries.
    fn with_log() -> Self {
        let tables = Self::new();
        open_log(tables.open().unwrap().as_mut());
        tables
    }
}

impl Place for Tables {
    fn shard(&self, shard: u32) -> Result<Box<dyn Reader>, StoreError> {
        self.0.at().shard(shard)
    }

    fn sealer(&self) -> Result<Option<Box<dyn Sealer>>, StoreError> {
        self.0.at().sealer()
    }

    fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(PostgresStore::connect(self.0.at().postgres().unwrap())?))
    }
}

fn one(index: u64) -> Batch {
    Batch { rows: vec![row(index)], ..Batch::default() }
}

#[test]
fn a_head_that_moved_all_the_same_takes_nothing() {
    let tables = Tables::with_log();
    let mut store = tables.open().unwrap();
    let transaction = store.begin().unwrap();
    // Somebody who does not ask for the lock.
    tables
        .0
        .sql("UPDATE head SET size = 3, checkpoint = 'another'; INSERT INTO entries VALUES (2, 'x', 'y')");
    let refused = transaction.commit(&one(2), &head(3, NOON));
    assert!(matches!(refused, Err(StoreError::HeadMoved { expected: 2, .. })), "{refused:?}");
    let reader = store.reader().unwrap();
    assert_eq!(reader.head().unwrap().unwrap().checkpoint, b"another");
    assert_eq!(store.begin().unwrap().head().size, 3, "it goes on from there");
}

#[test]
fn a_lock_that_another_session_holds_is_not_waited_for_for_long() {
    let tables = Tables::with_log();
    let mut store = tables.open().unwrap();
    let database = tables.0.clone();
    let holding = std::thread::spawn(move || {
        database.sql("BEGIN; SELECT pg_advisory_xact_lock(28540885003269235); SELECT pg_sleep(3); COMMIT");
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    let began = std::time::Instant::now();
    let refused = store.begin().map(drop);
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("lock")), "{refused:?}");
    assert!(began.elapsed().as_millis() < 2_500, "{:?}", began.elapsed());
    holding.join().unwrap();
    store.begin().unwrap().commit(&one(2), &head(3, NOON)).unwrap();
}

#[test]
fn a_session_that_is_killed_before_its_commit_leaves_no_trace() {
    let tables = Tables::with_log();
    let mut store = tables.open().unwrap();
    let transaction = store.begin().unwrap();
    tables.0.end_sessions();
    let refused = transaction.commit(&batch(2), &head(4, NOON));
    assert!(matches!(refused, Err(StoreError::Unknown(_) | StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(store.begin().unwrap().head(), &head(2, NOON), "and the store connects again by itself");
    assert_eq!(store.reader().unwrap().rows(2, 9).unwrap(), []);
    store.begin().unwrap().commit(&batch(2), &head(4, NOON)).unwrap();
}

#[test]
fn a_transaction_that_stalls_is_ended_by_the_server() {
    let tables = Tables::with_log();
    let mut stalling = tables.open().unwrap();
    let transaction = stalling.begin().unwrap();
    let mut waiting = tables.open().unwrap();
    waiting.begin().expect("it outwaits the one that stalls").commit(&one(2), &head(3, NOON)).unwrap();
    let refused = transaction.commit(&batch(2), &head(4, NOON));
    assert!(matches!(refused, Err(StoreError::Unknown(_) | StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(stalling.begin().unwrap().head(), &head(3, NOON));
}

#[test]
fn an_idle_connection_that_died_is_replaced_without_an_error() {
    let tables = Tables::with_log();
    let mut store = tables.open().unwrap();
    let reader = store.reader().unwrap();
    assert_eq!(reader.head().unwrap(), Some(head(2, NOON)));
    tables.0.end_sessions();
    assert_eq!(store.begin().unwrap().head(), &head(2, NOON));
    assert_eq!(reader.head().unwrap(), Some(head(2, NOON)));
}

#[test]
fn the_brokers_role_cannot_change_or_remove_what_is_recorded() {
    let tables = Tables::with_log();
    for (forbidden, what) in [
        ("UPDATE entries SET bytes = 'x'", "entries"),
        ("DELETE FROM entries", "entries"),
        ("TRUNCATE entries", "entries"),
        ("DELETE FROM folds", "folds"),
        ("UPDATE subtrees SET hash = 'x'", "subtrees"),
        ("UPDATE objects SET bytes = 'x'", "objects"),
        ("DELETE FROM objects", "objects"),
        ("DELETE FROM keys", "keys"),
        ("DELETE FROM head", "head"),
        ("DELETE FROM migrations", "migrations"),
        ("ALTER TABLE entries ADD COLUMN more text", "entries"),
        ("DROP TABLE entries", "entries"),
    ] {
        let refused = tables.0.sql_as_service(forbidden).expect_err(forbidden);
        let expected =
            [format!("permission denied for table {what}"), format!("must be owner of table {what}")];
        assert!(expected.contains(&refused), "{forbidden}: {refused}");
    }
    assert!(tables.0.sql_as_service("CREATE TABLE daypass.more (text text)").is_err());
}

#[test]
fn the_sealer_drops_what_is_sealed_and_may_do_nothing_else() {
    let tables = Tables::with_log();
    for forbidden in ["SELECT drop_sealed(9)", "SELECT seal(0, 2)", "UPDATE sealed SET until = 2"] {
        let refused = tables.0.sql_as_service(forbidden).expect_err(forbidden);
        assert!(refused.contains("permission denied"), "{forbidden}: {refused}");
    }
    for forbidden in [
        "DELETE FROM entries",
        "SELECT bytes FROM entries",
        "UPDATE entries SET bytes = 'x'",
        "UPDATE sealed SET until = 2",
        "INSERT INTO entries VALUES (9, 'x', 'y')",
        "DELETE FROM live",
        "UPDATE head SET size = 0",
        "SELECT sealed FROM keys",
    ] {
        let refused = tables.0.sql_as_sealer(forbidden).expect_err(forbidden);
        assert!(refused.contains("permission denied"), "{forbidden}: {refused}");
    }
    assert!(tables.0.sql_as_sealer("CREATE TABLE daypass.more (text text)").is_err());
    let mut first = tables.sealer().unwrap().unwrap();
    assert!(tables.sealer().unwrap().is_none(), "one seals at a time");
    first.seal(0, 2).unwrap();
    drop(first);
    tables.0.sql("GRANT EXECUTE ON FUNCTION drop_sealed(bigint) TO daypass");
    assert!(why_not(&tables).contains("could change what is recorded"));
}

fn why_not(tables: &Tables) -> String {
    match tables.open() {
        Ok(_) => panic!("it must be refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_role_that_could_change_what_is_recorded_is_refused() {
    let tables = Tables::with_log();
    tables.0.sql("GRANT DELETE ON entries TO daypass");
    assert!(why_not(&tables).contains("could change what is recorded"));
    tables.0.sql("REVOKE DELETE ON entries FROM daypass");
    tables.open().unwrap();
}

#[test]
fn tables_of_another_version_are_refused() {
    let tables = Tables::with_log();
    tables.0.sql("INSERT INTO migrations VALUES (4, 4, 'a later one')");
    assert!(why_not(&tables).contains("newer"));
    tables.0.sql("UPDATE migrations SET needs = 1 WHERE version = 4");
    tables.open().expect("what only adds can be lived with");
    tables.0.sql("DELETE FROM migrations");
    assert!(why_not(&tables).contains("daypass-broker migrate"));
    tables.0.sql("DROP SCHEMA daypass CASCADE");
    assert!(why_not(&tables).contains("not a store of daypass"));
}

#[test]
fn a_server_that_forgets_is_refused() {
    let tables = Tables::with_log();
    let mut store = tables.open().unwrap();
    tables.0.sql("ALTER ROLE daypass IN DATABASE postgres SET synchronous_commit = off");
    let name = &tables.0.name;
    tables.0.sql(&format!("ALTER DATABASE {name} SET synchronous_commit = off"));
    assert!(why_not(&tables).contains("synchronous_commit"));
    store.begin().expect("the setting is of new sessions");
    tables.0.sql(&format!("ALTER DATABASE {name} RESET synchronous_commit"));
    let demanding = tables.0.demanding(daypass_broker::store::postgres::Durability::Standby);
    assert!(demanding.open().is_err_and(|error| error.to_string().contains("synchronous standby")));
}

#[test]
fn a_read_only_server_is_refused() {
    let tables = Tables::with_log();
    let name = &tables.0.name;
    tables.0.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    assert!(why_not(&tables).contains("transaction_read_only"));
}

#[test]
fn the_servers_own_time_comes_with_the_head() {
    let tables = Tables::with_log();
    let mut store = tables.open().unwrap();
    let now = || daypass_broker::clock::Clock::now(&daypass_broker::clock::SystemClock);
    let before = now();
    let said = store.begin().unwrap().store_time().unwrap();
    assert!((before.get()..=now().get()).contains(&said.get()), "{said}");
}

#[test]
fn a_head_that_was_damaged_is_not_read() {
    let tables = Tables::with_log();
    tables.0.sql("UPDATE head SET frontier = 'cut'");
    let mut store = tables.open().unwrap();
    assert!(matches!(store.begin().map(drop), Err(StoreError::Damaged(_))));
    assert!(matches!(store.reader().unwrap().head(), Err(StoreError::Damaged(_))));
}
