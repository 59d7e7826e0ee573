//! What the parts promise together, by topic.

mod issue;
