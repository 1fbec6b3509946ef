//! Keys from arbitrary names, parts and numbers.

use crate::fuzzing::Bytes;
use crate::key::{KeyNamespace, LockKey, RawLockKey};
use crate::options::{LockMode, LockScope};
use crate::session::{Script, Statement, StatementKind};

/// Makes keys of the bytes in every way there is, and checks what is promised of them.
///
/// # Panics
///
/// If a promise is broken.
pub fn keys(data: &[u8]) {
    let mut bytes = Bytes(data);
    let first = usize::from(bytes.next().unwrap_or(0));
    let (left, right) = (bytes.take(first), bytes.0);
    parts(left, right);
    bytes = Bytes(data);
    let [single, pair] = [bytes.number(), bytes.number()];
    numbered(LockKey::from(single));
    numbered(LockKey::from(halves(pair)));
}

fn halves(number: i64) -> (i32, i32) {
    let bytes = number.to_le_bytes();
    let half =
        |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    (half(0), half(4))
}

fn parts(left: &[u8], right: &[u8]) {
    let key = LockKey::from_parts([left, right]);
    assert_eq!(
        key,
        LockKey::from_parts([left, right]),
        "the same parts are the same key"
    );
    // A collision of 64 bits is not met by chance; one by construction would be a fault of the
    // derivation.
    let joined = [left, right].concat();
    assert_ne!(key, LockKey::from_bytes(&joined), "two parts are not one");
    if left != right {
        assert_ne!(
            key,
            LockKey::from_parts([right, left]),
            "parts have an order"
        );
    }
    let namespace = KeyNamespace::new(left.to_vec());
    assert_eq!(
        namespace.key(right.to_vec()),
        key,
        "a namespace is a first part"
    );
    if let Ok(text) = std::str::from_utf8(&joined) {
        assert_eq!(
            LockKey::from(text),
            LockKey::from_bytes(&joined),
            "text is its bytes"
        );
    }
    shown(&key);
}

fn numbered(key: LockKey) {
    assert_eq!(LockKey::from(key.raw()), key);
    let columns = key.pg_locks();
    let [high, low] =
        [columns.classid, columns.objid].map(|column| i32::from_le_bytes(column.to_le_bytes()));
    let back = match columns.objsubid {
        1 => RawLockKey::Single((i64::from(high) << 32) | i64::from(columns.objid)),
        _ => RawLockKey::Pair(high, low),
    };
    assert_eq!(back, key.raw(), "pg_locks shows the whole key");
    shown(&key);
}

/// Nothing of a key but its integers is sent.
fn shown(key: &LockKey) {
    let parsed = key.to_string().parse::<LockKey>().ok();
    assert_eq!(parsed.as_ref(), Some(key), "the printed form parses");
    assert_eq!(parsed.as_ref().and_then(LockKey::text), key.text());
    assert_eq!(key.redacted().to_string().parse(), Ok(key.clone()));
    let wait = Script::Wait {
        key: key.raw(),
        mode: LockMode::Exclusive,
        scope: LockScope::Session,
        in_transaction: true,
        limit_ms: 1,
    };
    let numbers = match key.raw() {
        RawLockKey::Single(number) => vec![number],
        RawLockKey::Pair(first, second) => vec![first.into(), second.into()],
    };
    let sent = wait.sql();
    for number in &numbers {
        assert!(sent.contains(&format!("'{number}'::")), "{sent}");
    }
    let statement = Statement::new(StatementKind::IsHeld, key, LockMode::Shared);
    // The columns `classid` and `objid`.
    assert_eq!(statement.binds().count(), 2);
}
