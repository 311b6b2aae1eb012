//! What has arrived in the inbox: when a drop is complete, and what it waits for.
