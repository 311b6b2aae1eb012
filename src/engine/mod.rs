//! One loop that takes events, asks the domain what to do, hands effects to workers and records before it acts.
