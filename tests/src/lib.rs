//! The harness: a whole deployment on loopback, with real issuers, real clients and real files.
