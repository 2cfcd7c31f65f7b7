//! No guest hurts its host or its neighbours; each limit is told in the failure.
//!
//! What uploads may be refused for is in `api::uploads`.

mod egress;
mod egress_api;
mod hostile;
