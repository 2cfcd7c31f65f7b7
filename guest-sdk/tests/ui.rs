//! Wrong use does not compile, and the message says what to do.
//!
//! After a change of the messages: `TRYBUILD=overwrite cargo test -p stepbox-guest --test ui`,
//! and read the difference.

#[test]
fn wrong_use_is_told_at_compile_time() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
