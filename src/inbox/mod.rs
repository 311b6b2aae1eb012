//! Watch and scan: what lies in the inbox, as observations. Reads directories, never file contents.
