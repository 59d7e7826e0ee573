//! What axum's handlers take: the caller, and what a route demands of it as a type.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use daypass_verify::scope::{Action, Resource};
use http::request::Parts;

use super::caller::Caller;
use super::refused::Refused;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.to_http()
    }
}

/// The caller that [`super::ReceiverLayer`] has verified. Without the layer every request is refused.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let caller = parts.extensions.get::<Arc<Caller>>().ok_or(Refused::NoCredential)?;
        Ok(Caller::clone(caller))
    }
}

/// What a route demands of its callers.
///
/// ```
/// use daypass_sdk::receive::{Allowed, Demand};
///
/// struct WriteInvoices;
///
/// impl Demand for WriteInvoices {
///     const ACTION: &str = "invoice:write";
/// }
///
/// async fn post_invoice(Allowed(caller, _): Allowed<WriteInvoices>) -> String {
///     format!("thank you, {}", caller.subject)
/// }
/// ```
pub trait Demand: Send + Sync + 'static {
    /// The action that the credential must permit.
    const ACTION: &'static str;
    /// The task that the caller must be doing; none: any.
    const TASK: Option<&'static str> = None;

    /// The resource that the credential must reach, as the request names it; none where there is none. A path that
    /// names no valid resource must be refused.
    ///
    /// # Errors
    /// When the request names none that is valid: [`Refused::NotAllowed`].
    fn resource(parts: &Parts) -> Result<Option<Resource>, Refused> {
        let _ = parts;
        Ok(None)
    }
}

/// A caller that may do what the route demands.
#[derive(Debug, Clone)]
pub struct Allowed<D>(pub Caller, pub PhantomData<D>);

impl<S: Sync, D: Demand> FromRequestParts<S> for Allowed<D> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if D::TASK.is_some_and(|task| caller.task.as_str() != task) {
            return Err(Refused::NotAllowed);
        }
        // A demand that is no action is met by nobody.
        let action: Action = D::ACTION.parse().map_err(|_| Refused::NotAllowed)?;
        caller.may(&action, D::resource(parts)?.as_ref())?;
        Ok(Self(caller, PhantomData))
    }
}
