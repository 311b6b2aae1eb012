//! Durable steps, recovery, history and money.
