//! Generates the types of the API. protox compiles the files, so that no `protoc` has to be installed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 5] = [
    "daypass/v1/credential.proto",
    "daypass/v1/trust.proto",
    "daypass/v1/evidence.proto",
    "daypass/v1/registry.proto",
    "daypass/v1/governance.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=daypass");
    println!("cargo:rerun-if-changed=spiffe");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("daypass.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(descriptors)?;
    // No part of our own API: neither in what reflection shows nor under the same lint.
    let foreign = protox::compile(["spiffe/workload.proto"], ["."])?;
    tonic_prost_build::configure().bytes(".").emit_rerun_if_changed(false).compile_fds(foreign)?;
    Ok(())
}
