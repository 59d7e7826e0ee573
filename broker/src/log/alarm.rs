//! That a broker started or stopped, and an alarm about its clock, is written although the clock cannot be trusted: at a
//! time that it did not tell.

use daypass_evidence::entry::Body;

use super::answer::{Answer, refused};
use super::batch::{Assembled, Assembly, Author};
use super::outcome::Miss;
use super::work::{Fate, append, assembly_failed, unavailable};
use super::writer::Writer;
use super::{Command, RecordError};

/// The code of alarms about a broker's own clock.
pub const CLOCK: &str = "CLOCK";

/// The code of alarms about a store that went back.
pub const ROLLBACK: &str = "ROLLBACK";

impl Writer {
    /// Answers a batch that was not written; where the clock was why, what needs no clock is written alone.
    pub(super) fn refuse(&mut self, commands: Vec<Command>, error: &RecordError) -> Vec<Answer> {
        let by_clock = matches!(error, RecordError::Clock(_));
        let (timeless, rest): (Vec<_>, Vec<_>) =
            commands.into_iter().partition(|command| by_clock && needs_no_clock(command));
        let mut answers = refuse_all(rest, error);
        if !timeless.is_empty() {
            answers.extend(match self.attempt_without_clock(&timeless) {
                Ok((fates, assembled)) => self.answer(timeless, fates, Some(assembled)),
                // Tried again with the next batch, as the alarm is told until it is written.
                Err(Miss::Moved) => refuse_all(timeless, error),
                Err(Miss::Refused(error)) => refuse_all(timeless, &error),
            });
        }
        answers
    }

    fn attempt_without_clock(&mut self, commands: &[Command]) -> Result<(Vec<Fate>, Assembled), Miss> {
        let mut transaction = self.store.begin().map_err(unavailable)?;
        let head = transaction.head().clone();
        self.follower.take_over(&head)?;
        let time = self.watch.alarm_time(head.time, transaction.store_time());
        let author = Author {
            trust_domain: &self.settings.trust_domain,
            broker: &self.settings.broker,
            key: &self.settings.key,
        };
        let mut assembly = Assembly::new(&author, &head, time).map_err(assembly_failed)?;
        let written = |command: &Command| match command {
            Command::Append { entries, attached, .. } => {
                append(&mut assembly, transaction.as_mut(), entries, attached, true, &self.shards)
            }
            _ => Ok(Fate::Nothing),
        };
        let fates = commands.iter().map(written).collect::<Result<_, RecordError>>()?;
        let assembled = assembly.finish().map_err(assembly_failed)?;
        let committed = transaction.commit(&assembled.adds, &assembled.head);
        self.conclude(committed, &assembled)?;
        Ok((fates, assembled))
    }
}

fn refuse_all(commands: Vec<Command>, error: &RecordError) -> Vec<Answer> {
    commands.into_iter().filter_map(|command| refused(command, error)).collect()
}

fn needs_no_clock(command: &Command) -> bool {
    let Command::Append { entries, .. } = command else { return false };
    entries.iter().all(|entry| match &entry.body {
        Body::BrokerStarted(_) | Body::BrokerStopped(_) => true,
        Body::Alarm(alarm) => alarm.code == CLOCK,
        _ => false,
    })
}
