//! Whether anything may be sent: pauses, probes and the way back.
