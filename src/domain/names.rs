//! Names of what comes out: templates, numbers for taken names, shortening.
