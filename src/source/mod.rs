//! FLOOR 2: where a value comes from on a miss.

pub mod news;
