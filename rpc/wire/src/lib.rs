//! What crosses the network: plain types, frames, the hello, tickets, and their Cap'n Proto forms.

pub mod address;
pub mod control;
pub mod convert;
pub mod digest;
pub mod error;
pub mod frame;
mod frame_convert;
pub mod hello;
pub mod score;
pub mod secret;
pub mod socket;
pub mod ticket;
pub mod types;

pub use error::{Problem, ProblemKind, Result};
