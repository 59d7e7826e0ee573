//! The messages and services of `daypass.v1`, generated from the files under `proto/daypass/v1/`, which say what
//! each field means. And the SPIFFE Workload API.

/// The package `daypass.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated: the comments stand in the .proto files, where enums' values and services keep theirs"
)]
pub mod v1 {
    tonic::include_proto!("daypass.v1");
}

/// The SPIFFE Workload API, from `proto/spiffe/workload.proto`: its standard gives it no package.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated: the comments stand in the .proto file, where enums' values and services keep theirs"
)]
pub mod spiffe {
    tonic::include_proto!("_");
}

/// The encoded `google.protobuf.FileDescriptorSet` of the package and all that it imports, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/daypass.binpb"));

#[cfg(test)]
mod tests;
