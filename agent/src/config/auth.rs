//! `[[auth]]`: where a server in front of an application asks whether a request may pass.

use std::path::Path;

use daypass_verify::ids::Name;
use daypass_verify::scope::Audience;
use http::HeaderName;

use super::proxy::{Header, Listen, read_listen};
use super::section::Section;

/// Where a server asks about the tokens that it was shown.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Where it asks.
    pub listen: Listen,
    /// Who is addressed by the tokens that are taken.
    pub audience: Audience,
    /// The declared target that asks; none: what is done there is not reported.
    pub target: Option<Name>,
    /// The header in which the server says with which certificate its caller came; none: bound tokens are refused.
    pub client_certificate: Option<HeaderName>,
}

/// Every `[[auth]]`.
pub(super) fn read_all(whole: &mut Section<'_>, folder: &Path) -> Vec<Auth> {
    let mut all: Vec<Auth> = Vec::new();
    for mut section in whole.sections("auth") {
        let listen = read_listen(&mut section, folder);
        let audience =
            section.required("audience", "who is addressed by the tokens, an audience of the target");
        let target = section.optional::<Name>("target");
        let client_certificate = section.optional::<Header>("client_certificate").map(|it| it.0);
        if let Some((listen, audience)) = listen.zip(audience) {
            if all.iter().any(|other| other.listen == listen) {
                section.wrong("listen", "another one has it: expected a place of its own");
            }
            all.push(Auth { listen, audience, target, client_certificate });
        }
        section.finish();
    }
    all
}
