//! The API: model call, upload, credits, replies, the key.
