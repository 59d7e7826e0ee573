//! Why a command failed, as its exit code and as text.

use daypass_sdk::{Error, Refusal};

use crate::errors;

/// What ends a command early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The broker, the connection, or the answer.
    Broker(Error),
    /// The command line, a profile, or a file that it names.
    Usage(String),
    /// A bundle that is refused. The findings were printed.
    Refused(String),
    /// Evidence that does not hold. The findings were printed.
    Verification(String),
    /// Whoever reads the output has gone: nothing to say, and nobody to say it to.
    ReaderGone,
}

impl Failure {
    /// 1 refused, 2 usage, 3 unreachable, 4 verification failed.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::Refused(_) => 1,
            Self::Broker(
                Error::Retry { .. }
                | Error::FixRequest { .. }
                | Error::AskForPermission(_)
                | Error::ProofRefused(_),
            ) => 1,
            Self::Usage(_) | Self::Broker(Error::Config(_)) => 2,
            Self::Broker(Error::Unreachable { .. }) => 3,
            Self::Verification(_) | Self::Broker(Error::Unverified(_)) => 4,
        }
    }

    /// On one line, without advice.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::ReaderGone => String::new(),
            Self::Usage(text) | Self::Refused(text) | Self::Verification(text) => text.clone(),
            Self::Broker(error) => error.to_string(),
        }
    }

    /// Prints it to standard error, with the next step where there is one.
    pub(crate) fn show(&self) {
        if matches!(self, Self::ReaderGone) {
            return;
        }
        eprintln!("daypass: {}", self.text());
        if let Self::Broker(error) = self
            && let Some(refusal) = error.refusal()
        {
            eprint!("{}", advice(refusal));
        }
    }
}

/// The request id and the next step, as `daypass error` would say it.
fn advice(refusal: &Refusal) -> String {
    let mut text = String::new();
    if let Some(id) = &refusal.request_id {
        text += &format!("request: {id}\n");
    }
    if let Some(step) = errors::next_step(&refusal.reason) {
        text += &format!("next:    {step}\nmore:    daypass error {}\n", refusal.reason);
    }
    text
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => Self::Usage(format!("cannot write the answer: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use daypass_sdk::VerifyError;

    use super::*;

    fn refusal(reason: &str) -> Refusal {
        Refusal { reason: reason.into(), message: "no".into(), request_id: Some("r-1".into()) }
    }

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        let codes = [
            (Failure::Broker(Error::AskForPermission(refusal("SUSPENDED"))), 1),
            (Failure::Broker(Error::ProofRefused(refusal("PROOF_REPLAYED"))), 1),
            (Failure::Broker(Error::Retry { after: Duration::ZERO, refusal: refusal("CLOCK") }), 1),
            (Failure::Broker(Error::FixRequest { violations: vec![], refusal: refusal("MALFORMED") }), 1),
            (Failure::Refused("the bundle".into()), 1),
            (Failure::Usage("no broker".into()), 2),
            (Failure::Broker(Error::Config("no broker".into())), 2),
            (Failure::Broker(Error::Unreachable { broker: "b".into(), detail: "d".into() }), 3),
            (Failure::Verification("the log".into()), 4),
            (Failure::Broker(Error::Unverified(VerifyError::Answer("receipt"))), 4),
            (Failure::ReaderGone, 0),
        ];
        for (failure, code) in codes {
            assert_eq!(failure.exit_code(), code, "{failure:?}");
        }
    }

    #[test]
    fn a_refusal_shows_its_request_and_the_next_step() {
        let text = advice(&refusal("PROOF_REPLAYED"));
        assert!(text.starts_with("request: r-1\nnext:    get a new ID token"), "{text}");
        assert!(text.ends_with("daypass error PROOF_REPLAYED\n"), "{text}");
        assert_eq!(advice(&Refusal { request_id: None, ..refusal("SOMETHING_NEW") }), "");
    }
}
