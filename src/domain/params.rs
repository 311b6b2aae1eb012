//! The parameters of the API and of a preset: names, types, ranges.
