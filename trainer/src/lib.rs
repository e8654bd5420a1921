//! The learner: the `assay-train` binary.
