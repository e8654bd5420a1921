//! Work in flight: the evaluator, the queue, the journal.
