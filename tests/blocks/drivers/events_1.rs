fn main() {
    let key = signup_key("a@b.c");
    assert!(!format!("{key} {key:?}").contains("a@b.c"));
    assert_eq!(key, LockKey::from(("signup", "a@b.c")));
}
