//! The same in generic code.

use advisory_locking::AdvisoryLocking;

struct NoClient;

fn needs_locks(_: impl AdvisoryLocking) {}

fn main() {
    needs_locks(NoClient);
}
