//! FLOOR 5: actix-web: the only floor that serves HTTP.

pub mod key_table;
pub mod limiter;
