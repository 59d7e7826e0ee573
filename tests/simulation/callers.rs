//! What callers do, and what they make of the answer.

use std::task::Poll;

use daypass_broker::issue::{Credential, Desk, Refusal, issue};
use daypass_broker::log::{Compared, RecordError};
use daypass_core::proof::Principal;
use daypass_core::request::Request;
use daypass_evidence::checkpoint::Checkpoint;
use daypass_verify::ids::Digest;
use futures::future::join_all;

use super::check::Held;
use super::op::What;
use super::people::PEOPLE;
use super::world::World;

impl World {
    /// The checkpoint that is left to the writer to judge, as the API leaves it: what this broker knows as its own, or would
    /// look up in the store, is not.
    pub(super) fn shown(&self, desk: &Desk) -> Option<Checkpoint> {
        let judged =
            |known: &Checkpoint| matches!(desk.log.compare(known), Ok(Compared::Same | Compared::Older));
        self.known.clone().filter(|known| !judged(known))
    }

    pub(super) async fn issue(&mut self, what: What, ttl_s: u32) -> Result<(), String> {
        let token = self.fresh_token(what);
        self.newest_token = Some((what, token.clone()));
        let request = self.request(what, ttl_s);
        self.newest_request = Some((what, request.id));
        let Some(principal) = self.principal(&token) else { return Ok(()) };
        let answer = issue(self.desk(), &principal, &request, self.shown(self.desk())).await;
        self.answered_fresh(answer, &principal, &request)
    }

    pub(super) async fn replay(&mut self) -> Result<(), String> {
        let Some((what, token)) = self.newest_token.clone() else { return Ok(()) };
        self.ask(&token, self.request(what, 60)).await
    }

    pub(super) async fn repeat(&mut self) -> Result<(), String> {
        let Some((what, id)) = self.newest_request else { return Ok(()) };
        let token = self.fresh_token(what);
        self.ask(&token, PEOPLE.request(what, 60, id)).await
    }

    pub(super) async fn ask(&mut self, token: &str, request: Request) -> Result<(), String> {
        let Some(principal) = self.principal(token) else { return Ok(()) };
        let answer = issue(self.desk(), &principal, &request, self.shown(self.desk())).await;
        self.answered(answer, &principal, &request)
    }

    pub(super) async fn issue_many(&mut self, count: usize) -> Result<(), String> {
        let what = What::ReadInvoices;
        let mut tokens: Vec<String> = (0..count).map(|_| self.fresh_token(what)).collect();
        tokens[1] = tokens[0].clone();
        let principals: Vec<Principal> = tokens.iter().filter_map(|token| self.principal(token)).collect();
        let requests: Vec<Request> = principals.iter().map(|_| self.request(what, 60)).collect();
        let pairs = principals.iter().zip(&requests);
        let answers = join_all(
            pairs.map(|(principal, request)| issue(self.desk(), principal, request, self.shown(self.desk()))),
        )
        .await;
        for ((answer, principal), request) in answers.into_iter().zip(&principals).zip(&requests) {
            self.answered(answer, principal, request)?;
        }
        Ok(())
    }

    /// Asks, and is gone before the writer answers.
    pub(super) async fn go_away(&mut self, what: What) {
        let token = self.fresh_token(what);
        let Some(principal) = self.principal(&token) else { return };
        let request = self.request(what, 60);
        let asking = Box::pin(issue(self.desk(), &principal, &request, None));
        let answered = matches!(futures::poll!(asking), Poll::Ready(Ok(_)));
        assert!(!answered, "a credential without the writer");
    }

    /// What was never shown before cannot be spent, whatever became of a first attempt to record it.
    pub(super) fn answered_fresh(
        &mut self,
        answer: Result<Credential, Refusal>,
        principal: &Principal,
        request: &Request,
    ) -> Result<(), String> {
        if let Err(Refusal::NotRecorded(RecordError::Replayed | RecordError::AlreadyIssued)) = &answer {
            return Err("a fresh proof or request id is called spent".into());
        }
        self.answered(answer, principal, request)
    }

    pub(super) fn answered(
        &mut self,
        answer: Result<Credential, Refusal>,
        principal: &Principal,
        request: &Request,
    ) -> Result<(), String> {
        match answer {
            Ok(credential) => {
                let keyring = &self.seat().broker.as_ref().unwrap().keyring;
                self.held.push(Held::take(&credential, &self.key, keyring)?);
                let note = &credential.place().checkpoint;
                self.known = Some(Checkpoint::open_shard(note, &self.key).unwrap());
                Ok(())
            }
            Err(Refusal::NotRecorded(error)) => self.excused(&error, principal.digest(), request),
            Err(_) => Ok(()),
        }
    }

    /// Nobody is told that something was spent where nothing was bought.
    pub(super) fn excused(
        &mut self,
        error: &RecordError,
        proof: Digest,
        request: &Request,
    ) -> Result<(), String> {
        self.read_on()?;
        match error {
            RecordError::Replayed if !self.ledger.bought(&proof) => {
                Err("a proof is called spent, and bought nothing".into())
            }
            RecordError::AlreadyIssued if !self.ledger.asked(&request.id.to_string()) => {
                Err("a request id is called used, and nothing was issued for it".into())
            }
            RecordError::Overloaded => {
                Err("decided again and again under a state that is not the newest".into())
            }
            RecordError::Rollback(_) | RecordError::SplitView(_) => {
                Err(format!("a halt for nothing: {error}"))
            }
            _ => Ok(()),
        }
    }
}
