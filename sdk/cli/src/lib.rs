//! daypass-cli
