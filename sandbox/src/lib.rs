//! Where untrusted code runs.
