//! The brokers that write the log: when each started last, and whether it stopped since.

use std::collections::BTreeMap;

use daypass_evidence::entry::{Body, Index};
use daypass_verify::ids::Name;

/// The newest run of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Its `broker.started`.
    pub started: Index,
    /// Its `broker.stopped`; none while it runs, or where it ended without a word.
    pub stopped: Option<Index>,
}

/// The newest run of each name.
#[derive(Debug, Clone, Default)]
pub(super) struct Brokers(BTreeMap<Name, Run>);

impl Brokers {
    pub(super) fn follow(&mut self, index: Index, name: &Name, body: &Body) {
        match body {
            Body::BrokerStarted(_) => {
                self.0.insert(name.clone(), Run { started: index, stopped: None });
            }
            // What another says of it is not its own word: its next run says that this one did not end clean.
            Body::BrokerStopped(stopped) if stopped.of.is_none() => {
                if let Some(run) = self.0.get_mut(name) {
                    run.stopped = Some(index);
                }
            }
            _ => {}
        }
    }

    pub(super) fn run(&self, name: &Name) -> Option<Run> {
        self.0.get(name).copied()
    }
}
