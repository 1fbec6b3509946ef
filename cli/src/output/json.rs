//! JSON output. `version` is the version of the schema.
//!
//! Keys are strings, because numbers of 64 bits lose digits in JavaScript and jq. Durations are
//! seconds. Unknown values are null.

use std::time::Duration;

use advisory_locking::{LockHolder, LockMode, LockReport, LockWaiter, RawLockKey, SessionInfo};
use serde_json::{Map, Value, json};

use super::{is_unsafe, print_line};
use crate::failure::Failure;
use crate::lock_name::numbers;

const VERSION: u32 = 1;

/// Prints an object with the version of the schema.
pub(crate) fn print(object: Map<String, Value>) -> Result<(), Failure> {
    print_line(&text(object))
}

/// Prints an object with one field.
pub(crate) fn print_field(name: &str, value: Value) -> Result<(), Failure> {
    print_line(&field(name, value))
}

/// Returns the text of an object with one field.
pub(crate) fn field(name: &str, value: Value) -> String {
    text(Map::from_iter([(name.to_owned(), value)]))
}

fn text(mut object: Map<String, Value>) -> String {
    object.insert("version".to_owned(), VERSION.into());
    escaped(&Value::Object(object).to_string())
}

/// Escapes the characters that JSON allows in a string but a terminal interprets.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) {
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

/// Returns the fields of a key.
pub(crate) fn key(raw: RawLockKey) -> Map<String, Value> {
    let space = match raw {
        RawLockKey::Single(_) => "single",
        RawLockKey::Pair(..) => "pair",
    };
    Map::from_iter([
        ("key".to_owned(), numbers(raw).into()),
        ("key_space".to_owned(), space.into()),
    ])
}

pub(crate) fn report(report: &LockReport, name: Option<&str>) -> Value {
    let mut object = key(report.key);
    object.insert("name".to_owned(), name.into());
    let holders: Vec<Value> = report.holders.iter().map(holder).collect();
    object.insert("holders".to_owned(), holders.into());
    let waiters: Vec<Value> = report.waiters.iter().map(waiter).collect();
    object.insert("waiters".to_owned(), waiters.into());
    Value::Object(object)
}

fn holder(holder: &LockHolder) -> Value {
    let mut object = session(&holder.session);
    object.insert("mode".to_owned(), mode(holder.mode).into());
    let held = seconds(holder.session.held_at_least());
    object.insert("held_at_least".to_owned(), held);
    Value::Object(object)
}

fn waiter(waiter: &LockWaiter) -> Value {
    let mut object = session(&waiter.session);
    object.insert("mode".to_owned(), mode(waiter.mode).into());
    object.insert("waited".to_owned(), seconds(waiter.waited));
    object.insert("blocked_by".to_owned(), waiter.blocked_by.clone().into());
    Value::Object(object)
}

fn session(session: &SessionInfo) -> Map<String, Value> {
    let details = session.details.as_ref();
    let Value::Object(object) = json!({
        "pid": session.pid,
        "user": session.user,
        "application": session.application,
        "client_address": details.and_then(|it| it.client_address.as_deref()),
        "state": details.and_then(|it| it.state.as_deref()),
        "state_age": seconds(details.and_then(|it| it.state_age)),
        "transaction_age": seconds(details.and_then(|it| it.transaction_age)),
        "session_age": seconds(details.and_then(|it| it.session_age)),
    }) else {
        return Map::new();
    };
    object
}

pub(crate) const fn mode(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Exclusive => "exclusive",
        LockMode::Shared => "shared",
    }
}

fn seconds(duration: Option<Duration>) -> Value {
    duration.map(|duration| duration.as_secs_f64()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_interprets_are_escaped() {
        let text = "a\u{1b}\u{9b}\u{7f}\u{2028}\u{202e}é";
        let json = escaped(&json!(text).to_string());
        assert_eq!(json, r#""a\u001b\u009b\u007f\u2028\u202eé""#);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn keys_are_strings() {
        let object = key(RawLockKey::Single(i64::MIN));
        assert_eq!(object["key"], "-9223372036854775808");
        assert_eq!(key(RawLockKey::Pair(-1, 2))["key"], "-1,2");
    }
}
