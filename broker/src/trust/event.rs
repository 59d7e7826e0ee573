//! What operators have to hear of issuers' keys.

use daypass_verify::ids::Name;
use tokio::sync::mpsc;

/// Something happened to an issuer's keys; told once, when it begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "`issuer` is the declared issuer and `detail` says what was wrong")]
pub enum TrustEvent {
    /// Its key set, or what leads to it, is not believed; the last good set is used on.
    KeysetRefused { issuer: Name, detail: String },
    /// It gives no answer; the last good set is used on.
    ProviderUnreachable { issuer: Name, detail: String },
    /// Its key set is good again.
    KeysetRestored { issuer: Name },
    /// Its last good set is too old to be used: its callers are refused.
    KeysExpired { issuer: Name },
    /// It published the private part of a key; the key is not believed, and others may hold it.
    PrivateKeyPublished { issuer: Name, kid: String },
    /// Its file of revocation lists is not believed; the last good lists are used on until they end.
    CrlRefused { issuer: Name, detail: String },
    /// Its revocation lists are good again.
    CrlRestored { issuer: Name },
    /// It cannot be followed as it is declared: its callers are refused.
    IssuerRefused { issuer: Name, detail: String },
}

impl TrustEvent {
    /// The alarm's stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::KeysetRefused { .. } | Self::KeysetRestored { .. } => "KEYSET_REFUSED",
            Self::ProviderUnreachable { .. } => "ISSUER_UNREACHABLE",
            Self::KeysExpired { .. } => "ISSUER_KEYS_UNAVAILABLE",
            Self::PrivateKeyPublished { .. } => "PRIVATE_KEY_PUBLISHED",
            Self::CrlRefused { .. } | Self::CrlRestored { .. } => "CRL_REFUSED",
            Self::IssuerRefused { .. } => "ISSUER_REFUSED",
        }
    }

    /// The codes of this issuer's alarms that end with this event.
    #[must_use]
    pub fn clears(&self) -> &'static [&'static str] {
        match self {
            Self::KeysetRestored { .. } => {
                &["KEYSET_REFUSED", "ISSUER_UNREACHABLE", "ISSUER_KEYS_UNAVAILABLE"]
            }
            Self::CrlRestored { .. } => &["CRL_REFUSED"],
            _ => &[],
        }
    }

    /// Whose keys.
    #[must_use]
    pub fn issuer(&self) -> &Name {
        match self {
            Self::KeysetRefused { issuer, .. }
            | Self::ProviderUnreachable { issuer, .. }
            | Self::KeysetRestored { issuer }
            | Self::KeysExpired { issuer }
            | Self::PrivateKeyPublished { issuer, .. }
            | Self::CrlRefused { issuer, .. }
            | Self::CrlRestored { issuer }
            | Self::IssuerRefused { issuer, .. } => issuer,
        }
    }

    /// What was wrong, for the operator; empty where the code says it all.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::KeysetRefused { detail, .. }
            | Self::ProviderUnreachable { detail, .. }
            | Self::CrlRefused { detail, .. }
            | Self::IssuerRefused { detail, .. } => detail,
            Self::PrivateKeyPublished { kid, .. } => kid,
            Self::KeysetRestored { .. } | Self::KeysExpired { .. } | Self::CrlRestored { .. } => "",
        }
    }
}

/// Where events go.
#[derive(Clone)]
pub(super) struct Events(pub(super) mpsc::Sender<TrustEvent>);

impl Events {
    /// Never waits: a slow receiver must not keep keys from being refreshed. What does not fit is in the log of
    /// the program.
    pub(super) fn tell(&self, event: TrustEvent) {
        tracing::info!(code = event.code(), issuer = %event.issuer(), detail = event.detail(), "issuer's keys");
        if self.0.try_send(event).is_err() {
            tracing::warn!("an event of an issuer's keys found no receiver");
        }
    }
}
