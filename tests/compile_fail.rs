//! What must not compile, and what the compiler says then.
//!
//! The crate is built once more for this, by trybuild. Only with all features, because the messages list the types that have an
//! adapter. After a change of a message: `TRYBUILD=overwrite cargo test --all-features --test compile_fail`, then read the difference.
#![cfg(all(
    feature = "diesel-postgres",
    feature = "diesel-sqlite",
    feature = "r2d2",
    feature = "rusqlite"
))]

#[test]
fn misuse_does_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/nested_through_the_guard.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
