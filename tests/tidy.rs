//! Rules that are about what is absent, kept by looking: who depends on whom, what never comes in, where things may
//! stand, how long they may be.

mod examples;
mod graph;
mod licences;
mod links;
mod members;
mod sabotage;
mod samples;
mod shape;
mod sources;
mod walls;
