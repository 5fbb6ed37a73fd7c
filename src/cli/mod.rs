//! FLOOR 6: the commands; puts the floors together.

pub mod key;
pub mod sandbox;
