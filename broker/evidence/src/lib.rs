//! daypass-evidence
