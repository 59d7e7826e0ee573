//! daypass-core
