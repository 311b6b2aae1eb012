//! Whose turn it is: priority, then folders in turn, then the oldest.
