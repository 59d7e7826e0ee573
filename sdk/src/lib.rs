//! daypass-sdk
