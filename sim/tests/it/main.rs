//! One binary for the tests of the simulator as its users see it.
#![cfg(test)]

mod disk;
