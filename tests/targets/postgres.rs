//! PostgreSQL: certificates instead of passwords, and an enforcer beside the server.

mod apart;
mod expired;
mod ground;
mod left_over;
mod pools;
mod revoked;
mod strange;
