//! What guests may take: each limit is set, told in the failure, and holds.
//!
//! What attacks it all is in `hostile`; what uploads may be refused for is in `api::uploads`.

mod egress;
mod egress_api;
mod limits;
