//! One binary for the tests of the simulator as its users see it.
#![cfg(test)]

mod check;
mod counter;
mod damage;
mod disk;
mod echo;
mod fault;
mod network;
mod run;
mod world;
