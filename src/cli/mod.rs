//! FLOOR 6: the commands; puts the floors together.

pub mod sandbox;
