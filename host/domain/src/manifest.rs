//! What a module says of itself, checked.
pub struct Manifest {}
