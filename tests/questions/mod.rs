//! Questions: reads whose source is slow and may cost money with each call.

mod long;
