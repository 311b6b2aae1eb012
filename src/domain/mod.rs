//! The rules of the product as pure functions and types.
//!
//! Nothing here touches files, the network, a clock, randomness or async: `now` and seeds are arguments.
//! So every rule has a table or a property test, and the engine can be read as "ask, then act".

pub mod answer;
pub mod arrivals;
pub mod fskind;
pub mod gate;
pub mod hooks;
pub mod ids;
pub mod kinds;
pub mod life;
pub mod names;
pub mod news;
pub mod pace;
pub mod pairing;
pub mod params;
pub mod preset;
pub mod request;
pub mod status;
pub mod verdict;
