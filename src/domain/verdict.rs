//! What an answer of the API means, and whose fault it is.
