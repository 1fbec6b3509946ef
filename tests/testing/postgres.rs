//! PostgreSQL is not affected by injected faults. Uses the in-process model of the server.

use advisory_locking::testing::{Fault, TestLocks};
use advisory_locking::{AdvisoryLocking, LockError, LockKey};

use crate::QUIET;
use testkit::model::Model;

#[test]
fn a_server_answers_for_its_own_locks() {
    let (model, key) = (Model::default(), LockKey::from("key"));
    for locks in [TestLocks::new(), TestLocks::new_exclusive()] {
        let here = locks.attach();
        let _elsewhere = here.hold_from_other_session(&key);
        for fault in [Fault::Canceled, Fault::Lost, Fault::NotHeld] {
            here.inject_fault(&key, fault);
        }
        let mut first = model.connect();
        let held = first.acquire_advisory_lock(&key, QUIET).unwrap();
        assert_eq!(model.held(&key).len(), 1);
        let second = model
            .connect()
            .with_advisory_lock(&key, QUIET, |_| Ok::<_, LockError>(()));
        assert!(second.is_err(), "the server excludes");
        held.release().unwrap();
        assert_eq!(model.held(&key), []);
        assert_eq!(
            (here.terminate_holders(&key), here.contention_count(&key)),
            (0, 0)
        );
        assert_eq!(here.events(), []);
    }
}
