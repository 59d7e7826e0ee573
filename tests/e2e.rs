//! What the parts promise together, by topic.

mod certificates;
mod clock;
mod endings;
mod evidence;
mod go;
mod issue;
mod lifetimes;
mod organisation;
mod outside;
mod postgres;
mod refusals;
mod replay;
mod restart;
mod sdk;
mod stock;
mod store;
mod tiles;
mod witness;
