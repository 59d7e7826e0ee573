//! daypass-proto
