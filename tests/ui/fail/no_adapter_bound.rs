//! A type without an adapter, or without its feature, as a generic argument.

use advisory_locking::AdvisoryLocking;

struct NoClient;

fn needs_locks(_: impl AdvisoryLocking) {}

fn main() {
    needs_locks(NoClient);
}
