//! Layers of settings, and what results when they are laid over one another.
