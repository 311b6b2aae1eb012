//! What a name in the inbox means: picture, sidecar, preset, junk, or foreign.
