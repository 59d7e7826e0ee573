//! Statements, from tests that wait for them.

use tokio_postgres::{Error, NoTls, SimpleQueryMessage};

use super::Postgres;

impl Postgres {
    /// Runs statements as the superuser.
    pub fn sql(&self, database: &str, text: &str) {
        self.sql_as("postgres", database, text).unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    /// Runs statements as a role; the error where one is refused.
    pub fn sql_as(&self, role: &str, database: &str, text: &str) -> Result<(), String> {
        self.ask(role, database, text).map(drop).map_err(|error| match error.as_db_error() {
            Some(db) => db.message().to_owned(),
            None => error.to_string(),
        })
    }

    /// The rows of a query, as texts; null is empty.
    pub fn query(&self, database: &str, text: &str) -> Vec<Vec<String>> {
        self.ask("postgres", database, text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// Whether it takes connections.
    pub fn answers(&self) -> bool {
        self.ask("postgres", "postgres", "SELECT 1").is_ok()
    }

    /// On a thread of its own: the caller may be within a runtime.
    fn ask(&self, role: &str, database: &str, text: &str) -> Result<Vec<Vec<String>>, Error> {
        let url = format!("postgresql://{role}@127.0.0.1:{}/{database}?connect_timeout=5", self.port);
        let asking = async move {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            let driving = tokio::spawn(connection);
            let messages = client.simple_query(text).await?;
            drop(client);
            drop(driving.await);
            Ok(messages.iter().filter_map(row).collect())
        };
        std::thread::scope(|scope| {
            let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            scope.spawn(move || runtime().block_on(asking)).join().unwrap()
        })
    }
}

fn row(message: &SimpleQueryMessage) -> Option<Vec<String>> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    Some((0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect())
}
