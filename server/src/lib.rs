//! The composition root: the `assay` binary.
