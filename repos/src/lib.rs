//! What a task is and where it comes from. Runs nothing.
