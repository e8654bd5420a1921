//! The native backend, with real namespaces, as root and as an ordinary user.

mod common;
mod images;
mod isolation;
mod leftovers;
mod limits;
mod ordinary_user;
mod running;
mod session;
mod warm;
