//! The gRPC face: the only place that knows statuses and generated types. Each handler decodes, calls, and maps.

mod authenticate;
mod convert;
mod credential;
mod delegation;
mod endings;
mod evidence;
mod governance;
mod later;
mod revoke;
mod selector;
mod status;
mod suspend;
mod trust;

use std::sync::Arc;

use daypass_proto::v1::credential_service_server::CredentialServiceServer;
use daypass_proto::v1::evidence_service_server::EvidenceServiceServer;
use daypass_proto::v1::governance_service_server::GovernanceServiceServer;
use daypass_proto::v1::registry_service_server::RegistryServiceServer;
use daypass_proto::v1::trust_service_server::TrustServiceServer;
use tonic::service::Routes;

use crate::api::standing;

pub use crate::api::Api;
pub use authenticate::Authenticate;

/// Requests are small; bundles come in chunks.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Anybody may ask for health, and names a service at most.
const HEALTH_BYTES_MAX: usize = 1024;

/// All services behind the one layer that authenticates every method.
#[must_use]
pub fn routes(api: Arc<Api>, reflection: bool) -> Authenticate<Routes> {
    let mut routes = Routes::builder();
    routes
        .add_service(
            CredentialServiceServer::new(credential::Service(Arc::clone(&api)))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            EvidenceServiceServer::new(evidence::Service(Arc::clone(&api)))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            TrustServiceServer::new(trust::Service(Arc::clone(&api)))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(RegistryServiceServer::new(later::Later).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            GovernanceServiceServer::new(governance::Service(Arc::clone(&api)))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        );
    let (reporter, health) = tonic_health::server::health_reporter();
    drop(reporter);
    routes.add_service(health.max_decoding_message_size(HEALTH_BYTES_MAX));
    if reflection {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(daypass_proto::FILE_DESCRIPTOR_SET)
            .build_v1();
        if let Ok(reflection) = reflection {
            routes.add_service(reflection.max_decoding_message_size(MESSAGE_BYTES_MAX));
        }
    }
    Authenticate::new(routes.routes(), api)
}
