//! PostgreSQL: certificates instead of passwords, and an enforcer beside the server.

mod ground;
mod revoked;
