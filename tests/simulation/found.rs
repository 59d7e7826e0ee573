//! Lists of operations that once failed, each with what it found.

use super::op::Op::{
    self, ActivateElsewhere, Advance, AppendHalf, CasFails, Flush, Issue, SignerFails, Skew, StoreLost,
    Sweep, Turn, TurnLog,
};
use super::op::What::{LedgerDb, PostInvoices, ReadInvoices};

pub(crate) const LISTS: &[(&str, &[Op])] = &[
    (
        // A kill before the next sweep left a log that its own broker refused to start on.
        "after a long pause an entry came before the endings that were due",
        &[Issue { what: LedgerDb, ttl_s: 20 }, Advance(125_000), Issue { what: ReadInvoices, ttl_s: 60 }],
    ),
    (
        "what was settled in a commit of unknown outcome was settled again once it was found there",
        &[SignerFails, Issue { what: ReadInvoices, ttl_s: 300 }, StoreLost { persisted: true }, Flush, Flush],
    ),
    (
        "a credential of a commit of unknown outcome expired, and was then called void",
        &[
            StoreLost { persisted: true },
            Issue { what: ReadInvoices, ttl_s: 5 },
            Advance(60_000),
            Sweep,
            Flush,
        ],
    ),
    (
        "what another broker changed was never learned by one that only issues",
        &[ActivateElsewhere, Issue { what: ReadInvoices, ttl_s: 60 }],
    ),
    ("of an append with an entry that cannot be written, the entries before it were", &[AppendHalf, Sweep]),
];

/// The same with three brokers on one store.
pub(crate) const LISTS_OF_MANY: &[(&str, &[Op])] = &[
    (
        // Tried again, it would have been refused as its own replay.
        "a commit that failed and persisted was not answered as recorded",
        &[CasFails { persisted: true }, Issue { what: ReadInvoices, ttl_s: 60 }],
    ),
    (
        // A credential of a second was over by the time of the newest entry, and was decided again to the same end.
        "a broker whose clock is behind another's refused a short credential as if it were overloaded",
        &[
            Skew(-900),
            Turn(1),
            Issue { what: ReadInvoices, ttl_s: 60 },
            Turn(0),
            Issue { what: PostInvoices, ttl_s: 1 },
        ],
    ),
    (
        "a log was closed long after endings that were due, and did not verify",
        &[Issue { what: LedgerDb, ttl_s: 20 }, Advance(125_000), TurnLog],
    ),
];
