//! FLOOR 6: the commands.

pub mod check;
