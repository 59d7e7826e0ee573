//! A log that goes on in the next, and brokers that go with it.

use daypass_broker::log::{Turns, next_origin};

use super::seat::Seat;
use super::world::World;

impl Seat {
    /// Whether the log that its broker serves is known to it as closed, and the broker can act on it.
    pub(super) fn is_left_behind(&self) -> bool {
        let over = self.broker.as_ref().is_some_and(|broker| broker.desk.log.over().is_cancelled());
        over && !self.faults.is_frozen()
    }
}

impl World {
    /// Closes the log, whatever others do meanwhile; it may fail, and then goes on.
    pub(super) async fn turn_log(&mut self) -> Result<(), String> {
        let log = &self.desk().log;
        let next = next_origin(&log.published(), self.now(), Turns { half_years: false, entries: 1 });
        let turned = log.turn(next.ok_or("a log without a number")?).await.is_ok();
        let before = self.ledger.shard();
        self.read_on()?;
        match turned && self.ledger.shard() == before {
            true => Err("the log is said to go on in another, and does not".into()),
            false => Ok(()),
        }
    }

    /// Serves the next log, and takes along what could not go into the one before.
    pub(super) fn go_on(&mut self, seat: usize) -> Result<(), String> {
        let settlements =
            self.seats[seat].broker.as_ref().map(|broker| broker.desk.log.settlements().leave());
        self.again(seat)?;
        let log = &self.seats[seat].broker.as_ref().unwrap().desk.log;
        log.settlements().take_over(settlements.unwrap_or_default());
        self.suspended = self.ledger.suspensions();
        Ok(())
    }
}
