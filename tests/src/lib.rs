//! The whole pipeline over real sockets, and attacks.
