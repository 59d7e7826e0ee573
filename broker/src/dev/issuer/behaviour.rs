//! How a provider may misbehave: each a value that is set while it runs.

use std::time::Duration;

use bytes::Bytes;

/// What a caller asks the issuer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `/.well-known/openid-configuration`.
    Discovery,
    /// `/jwks`.
    Jwks,
    /// `/mint`.
    Mint,
}

/// What an endpoint does with a request.
#[derive(Debug, Clone, Default)]
pub enum Behaviour {
    /// Answers as it should.
    #[default]
    Honest,
    /// Answers as it should, after a pause.
    Late(Duration),
    /// Answers as it should, with these headers set besides.
    Headers(Vec<(&'static str, String)>),
    /// Answers as it should to who shows this bearer token, and with `401` to all others.
    Guarded(String),
    /// Answers with another status, headers and body.
    Answer {
        /// The HTTP status.
        status: u16,
        /// Header names and values.
        headers: Vec<(&'static str, String)>,
        /// The whole body.
        body: Bytes,
    },
    /// Answers `200` with a body that comes one byte in each of these pauses and never ends.
    Drip(Duration),
}

impl Behaviour {
    /// Answers `200` with this body.
    #[must_use]
    pub fn body(body: impl Into<Bytes>) -> Self {
        Self::Answer { status: 200, headers: Vec::new(), body: body.into() }
    }

    /// Answers with this status and no body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// Answers with a redirect to `location`.
    #[must_use]
    pub fn redirect(status: u16, location: impl Into<String>) -> Self {
        Self::Answer { status, headers: vec![("location", location.into())], body: Bytes::new() }
    }
}

/// What the issuer does with a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connection {
    /// Serves it under a valid certificate.
    #[default]
    Honest,
    /// Accepts it and never says a word of TLS.
    SilentHandshake,
    /// Shows a certificate that has expired.
    ExpiredCertificate,
    /// Shows a certificate for another host.
    OtherHost,
    /// Shows a certificate of another CA.
    OtherCa,
    /// Sends response headers that never end.
    EndlessHeaders,
    /// Closes it at once.
    Closed,
}
