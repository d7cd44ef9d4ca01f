//! The journal from outside: one binary, one idea a module.
#![cfg(test)]

mod crash;
mod every_byte;
mod faults;
mod golden;
mod inspecting;
mod measure;
mod model;
mod opening;
mod reading;
mod repairing;
mod rewriting;
mod sealing;
mod support;
mod unreadable;
