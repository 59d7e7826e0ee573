//! Real servers where credentials are used, and what becomes of access to each once a credential has ended:
//! `docs/targets/README.md` is made from here.

mod nginx;
mod postgres;
mod services;
mod static_key;
pub(crate) mod table;
