//! Why the log did not take something.

/// Why nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The proof was spent before.
    #[error("the proof was shown before, and its issuer's proofs buy one credential each")]
    Replayed,
    /// The caller's request id was used before.
    #[error("a credential was already issued for this request id")]
    AlreadyIssued,
    /// The credential that it would renew was revoked.
    #[error("the credential that this one would renew was revoked")]
    Revoked,
    /// The node certificate was renewed before, for another key.
    #[error("the node certificate was renewed before, for another key: somebody has a copy of it")]
    Superseded,
    /// The log could not be written.
    #[error("the evidence log could not be written: {0}")]
    Unavailable(String),
    /// There is no room but what is kept for endings, revocations and alarms.
    #[error("the store is full: nothing is written but what must be, until there is room")]
    Full,
    /// The clock cannot be trusted.
    #[error("the clock cannot be trusted: {0}")]
    Clock(String),
    /// Somebody holds a validly signed checkpoint that this store does not know.
    #[error("the store went back: {0}")]
    Rollback(String),
    /// The state moved since the entries were decided.
    #[error("the state moved since this was decided: look again")]
    StateMoved,
    /// Two signed heads exclude each other: the log was forked.
    #[error("the log was forked: {0}")]
    SplitView(String),
    /// The log was closed, and another follows it.
    #[error("the log goes on in another shard, and the broker starts again there")]
    Turned,
    /// The queue is full.
    #[error("too many requests are waiting for the log")]
    Overloaded,
    /// The broker is stopping, or was halted.
    #[error("the broker writes no more: {0}")]
    Halted(String),
}

impl RecordError {
    /// Whether the broker must write nothing more until its operators have looked.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Rollback(_) | Self::SplitView(_) | Self::Halted(_) | Self::Turned)
    }
}
