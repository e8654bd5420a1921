//! What a run was worth: reports to facts, facts to a number. Pure and synchronous.
