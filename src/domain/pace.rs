//! How fast may be sent: requests a minute, in flight, backoff.
