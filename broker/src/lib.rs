//! daypass-broker
