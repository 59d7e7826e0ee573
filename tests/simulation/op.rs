//! What can happen, and the list of it that a seed stands for.

/// What a caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A token, bound, for a proof that buys one credential.
    PostInvoices,
    /// A token that may be unbound.
    ReadInvoices,
    /// A certificate for a database.
    LedgerDb,
    /// A token for a target that no revocation reaches.
    DeployWeb,
    /// An X.509-SVID, for a proof that may be shown again.
    MeshCertificate,
    /// A JWT-SVID.
    MeshToken,
    /// A supplier's token, which a contract bounds.
    SyncOrders,
}

pub(crate) const WHATS: [What; 7] = [
    What::PostInvoices,
    What::ReadInvoices,
    What::LedgerDb,
    What::DeployWeb,
    What::MeshCertificate,
    What::MeshToken,
    What::SyncOrders,
];

/// A step of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Taking the lock.
    Begin,
    /// Spending marks.
    Spend,
    /// Looking for what expired.
    Expired,
    /// Committing.
    Commit,
}

/// Something that a suspension selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The identity of the nightly billing run.
    Nightly,
    /// The task of the mesh.
    Mesh,
    /// Everything.
    Everything,
}

/// Where a broker stands still, and what its store says once it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frozen {
    /// Within a commit: the store took its lock away and undid it.
    LockLost(Says),
    /// After the commit, before its answer.
    Committed(Says),
}

/// What a store says of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Says {
    /// It is durable.
    Done,
    /// Nothing of it is there.
    Failed,
    /// The head moved before it.
    Moved,
    /// Its outcome is not known.
    Unknown,
}

/// One operation. A fault waits for the next time that its step is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// A caller with a fresh proof.
    Issue { what: What, ttl_s: u32 },
    /// The newest proof of a `once` issuer is shown again.
    IssueReplay,
    /// The newest request id comes again, with a fresh proof.
    IssueRepeat,
    /// Several callers at once, the first two of them with one proof.
    IssueMany(usize),
    /// A caller that goes away before its answer.
    CallerGone(What),
    /// Time passes (milliseconds).
    Advance(i64),
    /// The clock is set back (milliseconds).
    Back(i64),
    /// The second's sweep.
    Sweep,
    /// Settlements that wait are written.
    Flush,
    /// An operator suspends.
    Suspend(Whom),
    /// The oldest suspension is lifted.
    Lift,
    /// The other of two bundles comes into force.
    ActivateBundle,
    /// The same, by another broker on the same store.
    ActivateElsewhere,
    /// Two entries in one append, of which the second cannot be written.
    AppendHalf,
    /// A step fails, and nothing of it is in the store.
    StoreFails(Step),
    /// A commit says that its outcome is not known.
    CommitUnknown { persisted: bool },
    /// The same, and then the store does not answer for longer than the broker asks.
    StoreLost { persisted: bool },
    /// The signer refuses.
    SignerFails,
    /// The signer makes a signature that does not verify.
    SignerLies,
    /// The broker stops in order and starts again.
    Restart,
    /// The broker is killed between two operations and starts again.
    Crash,
    /// The broker is killed within its next commit.
    DiesInCommit { persisted: bool },
    /// The next operations are about this broker.
    Turn(usize),
    /// One proof, shown to all brokers at once.
    IssueEverywhere(What),
    /// A caller whose broker stands still while it serves it.
    IssueFrozen { what: What, frozen: Frozen },
    /// The broker goes on.
    Wake,
    /// The broker cannot reach the store, to read or to write.
    Cut,
    /// It can again.
    Heal,
    /// The broker's clock is that much before the others'.
    Skew(i64),
    /// All brokers sweep at once.
    SweepEverywhere,
    /// The broker takes over what others wrote.
    Follow,
    /// A commit says that the head moved, although it may be there.
    CasFails { persisted: bool },
    /// The log is closed, and goes on in the next.
    TurnLog,
    /// Sabotage: a commit answers that it is durable, and is not.
    StoreForgets,
}

impl Op {
    /// Whether it cannot be done while its broker stands still.
    pub(crate) fn needs_an_answer(self) -> bool {
        let others =
            matches!(self, Self::Turn(_) | Self::Wake | Self::Cut | Self::Heal | Self::Skew(_) | Self::Crash);
        !others
            && !matches!(
                self,
                Self::Advance(_) | Self::Back(_) | Self::IssueEverywhere(_) | Self::SweepEverywhere
            )
    }
}

/// Pseudo-random numbers that are the same everywhere (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(crate) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// The operations that `seed` stands for.
pub(crate) fn list(seed: u64, length: usize) -> Vec<Op> {
    let mut random = Random::new(seed);
    (0..length).map(|_| one(&mut random)).collect()
}

/// The same for several brokers.
pub(crate) fn list_of_many(seed: u64, length: usize) -> Vec<Op> {
    let mut random = Random::new(!seed);
    (0..length).map(|_| one_of_many(&mut random)).collect()
}

/// The same where each log is soon followed by another.
pub(crate) fn list_of_turns(seed: u64, length: usize) -> Vec<Op> {
    let mut random = Random::new(!seed);
    let mut one = || match random.below(12) {
        0 => Op::TurnLog,
        _ => one_of_many(&mut random),
    };
    (0..length).map(|_| one()).collect()
}

fn one_of_many(random: &mut Random) -> Op {
    let persisted = random.below(2) == 0;
    match random.below(100) {
        0..18 => Op::Turn(random.below(3)),
        18..22 => Op::IssueFrozen {
            what: random.of(&WHATS),
            frozen: if persisted {
                Frozen::Committed(random.of(&[Says::Done, Says::Moved, Says::Unknown]))
            } else {
                Frozen::LockLost(random.of(&[Says::Failed, Says::Moved, Says::Unknown]))
            },
        },
        22..31 => Op::Wake,
        31..33 => Op::Cut,
        33..39 => Op::Heal,
        39..42 => Op::Skew(random.of(&[-900, -300, 0, 0, 400, 900])),
        42..47 => Op::IssueEverywhere(random.of(&WHATS)),
        47..50 => Op::SweepEverywhere,
        50..53 => Op::Follow,
        53..58 => Op::CasFails { persisted },
        _ => one(random),
    }
}

fn one(random: &mut Random) -> Op {
    let persisted = random.below(2) == 0;
    match random.below(100) {
        0..30 => Op::Issue { what: random.of(&WHATS), ttl_s: random.of(&[1, 5, 20, 60, 300, 900]) },
        30..36 => Op::IssueReplay,
        36..39 => Op::IssueRepeat,
        39..43 => Op::IssueMany(2 + random.below(6)),
        43..47 => Op::CallerGone(random.of(&WHATS)),
        47..57 => Op::Advance(random.of(&[1, 900, 5_000, 31_000, 61_000, 125_000, 290_000, 1_000_000])),
        57..60 => Op::Back(random.of(&[1, 800, 2_100, 6_000])),
        60..66 => Op::Sweep,
        66..69 => Op::Flush,
        69..72 => Op::Suspend(random.of(&[Whom::Nightly, Whom::Mesh, Whom::Everything])),
        72..76 => Op::Lift,
        76 => Op::ActivateBundle,
        77 => Op::ActivateElsewhere,
        78 => Op::AppendHalf,
        79..84 => Op::StoreFails(random.of(&[Step::Begin, Step::Spend, Step::Expired, Step::Commit])),
        84..88 => Op::CommitUnknown { persisted },
        88..90 => Op::SignerFails,
        90..92 => Op::SignerLies,
        92..94 => Op::Restart,
        94..97 => Op::Crash,
        _ => Op::DiesInCommit { persisted },
    }
}
