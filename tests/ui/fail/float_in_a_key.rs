//! A float is not a key part: it has several texts, and NaN does not equal itself.

use advisory_locking::LockKey;

fn main() {
    let _ = LockKey::from_parts([1.5]);
    let _ = LockKey::from(("sync", 1.5));
}
