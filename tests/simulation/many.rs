//! What happens among several brokers on one store.

use std::sync::Arc;
use std::time::Duration;

use daypass_broker::issue::issue;
use futures::future::join_all;

use super::op::{Frozen, Op, What};
use super::seat::Waiting;
use super::world::World;

/// How long a broker may take until it reaches a commit.
const ROUNDS: usize = 3_000;

impl World {
    /// The brokers that answer.
    fn awake(&self) -> Vec<usize> {
        (0..self.seats.len()).filter(|seat| !self.seats[*seat].faults.is_frozen()).collect()
    }

    /// One proof, shown to all brokers at once.
    pub(super) async fn issue_everywhere(&mut self, what: What) -> Result<(), String> {
        let token = self.fresh_token(what);
        self.newest_token = Some((what, token.clone()));
        let turn = self.turn;
        let mut asked = Vec::new();
        for seat in self.awake() {
            self.turn = seat;
            if let Some(principal) = self.principal(&token) {
                asked.push((seat, self.desk().clone(), principal, self.request(what, 60)));
            }
        }
        let answers = join_all(
            asked
                .iter()
                .map(|(_, desk, principal, request)| issue(desk, principal, request, self.shown(desk))),
        )
        .await;
        for (answer, (seat, _, principal, request)) in answers.into_iter().zip(&asked) {
            self.turn = *seat;
            self.answered(answer, principal, request)?;
        }
        self.turn = turn;
        Ok(())
    }

    pub(super) async fn sweep_everywhere(&mut self) {
        let awake = self.awake();
        let desk = |seat: &usize| self.seats[*seat].broker.as_ref().unwrap().desk.clone();
        let desks: Vec<_> = awake.iter().map(desk).collect();
        desks.iter().for_each(|desk| desk.log.sweep());
        let turn = self.turn;
        for seat in awake {
            self.turn = seat;
            self.barrier().await;
        }
        self.turn = turn;
    }

    /// Asks, and leaves the broker standing still within the commit.
    pub(super) async fn issue_frozen(&mut self, what: What, frozen: Frozen) -> Result<(), String> {
        let token = self.fresh_token(what);
        self.newest_token = Some((what, token.clone()));
        let Some(principal) = self.principal(&token) else { return Ok(()) };
        let (principal, request) = (Arc::new(principal), Arc::new(self.request(what, 60)));
        let fault = Op::IssueFrozen { what, frozen };
        self.seat().faults.arm(fault);
        let (desk, known) = (self.desk().clone(), self.shown(self.desk()));
        let asked = (Arc::clone(&principal), Arc::clone(&request));
        let answer = tokio::spawn(async move { issue(&desk, &asked.0, &asked.1, known).await });
        for _ in 0..ROUNDS {
            if self.seat().faults.is_frozen() || answer.is_finished() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if self.seat().faults.is_frozen() {
            self.seats[self.turn].waiting.push(Waiting { principal, request, answer });
            return Ok(());
        }
        self.seat().faults.forget(fault);
        self.answered_fresh(answer.await.unwrap(), &principal, &request)
    }

    /// The broker goes on, and answers whoever waited.
    pub(super) async fn wake(&mut self) -> Result<(), String> {
        self.seat().faults.thaw();
        for Waiting { principal, request, answer } in std::mem::take(&mut self.seats[self.turn].waiting) {
            self.answered_fresh(answer.await.unwrap(), &principal, &request)?;
        }
        Ok(())
    }

    /// What others wrote is in force here: head, state and bundle.
    pub(super) async fn follow(&mut self) -> Result<(), String> {
        let published = self.desk().log.published_at(u64::MAX).await;
        if self.seat().is_left_behind() {
            return Ok(());
        }
        if self.seat().faults.cut.load(std::sync::atomic::Ordering::SeqCst) {
            return Ok(());
        }
        let head = self.ground.reader().unwrap().head().unwrap().unwrap();
        match *published.head == head && published.state.at() == head.state {
            true => Ok(()),
            false => Err(format!("it sees {} entries, and the store has {}", published.head.size, head.size)),
        }
    }
}
