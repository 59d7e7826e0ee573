//! The sidecar of Daypass: keeps the credentials that its configuration names, and gives them to workloads that cannot
//! ask a broker themselves: in files, at a Unix socket, to a child process, on requests to a service. Beside a server, it
//! ends the sessions whose credentials have ended.

mod auth;
mod clients;
mod clock;
pub mod config;
mod door;
mod enforcer;
mod enrol;
mod exec;
pub mod files;
mod hook;
mod keep;
mod node;
mod notify;
mod oneshot;
mod output;
mod proxy;
mod ready;
mod roots;
mod run;
#[cfg(feature = "sabotage")]
mod sabotage;
mod sealed;
mod signals;
mod socket;
mod standing;
mod tally;
mod token;
mod workload;

pub use enrol::enrol;
pub use oneshot::run_once;
pub use run::{Failure, keep_memory_private, run};
