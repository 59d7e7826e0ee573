//! What the parts promise together, by topic.

mod brokers;
mod certificates;
mod clock;
mod compromise;
mod endings;
mod evidence;
mod go;
mod imported;
mod issue;
mod lifetimes;
mod organisation;
mod outside;
mod postgres;
mod pressure;
mod recover;
mod refusals;
mod replay;
mod restart;
mod rotation;
mod scrub;
mod sdk;
mod seal;
mod stock;
mod store;
mod tiles;
mod witness;
