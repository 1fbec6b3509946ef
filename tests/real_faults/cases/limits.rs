//! Short limits, and cycles of waits.

use std::time::Duration;

use advisory_locking::LockErrorKind::{Deadlock, Pool, TimedOut};
use testkit::observer::Observe;
use testkit::server::connect;
use testkit::temp::TempObject;

use super::{LONG, block, no_wait, queue};
use crate::actor::Outcome::{Done, Failed, Granted};
use crate::actor::{Command, SqlCommand, request};
use crate::adapter_under_test::{AdapterUnderTest, Kind};

/// A free key is granted under the shortest limit, because the limit applies to the wait only.
pub(crate) fn a_free_key_under_the_shortest_limit(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let key = fixture.key("key");
        let actor = fixture.actor();
        let mut without_connection = 0;
        for round in 0..2000 {
            let limit = Duration::from_nanos(if round % 2 == 0 { 1 } else { 1_000_000 });
            let outcome = actor.acquire(&key, block(limit));
            // A loaded machine may need longer for a checkout than the pool may take.
            if adapter.kind == Kind::Pool && outcome == Failed(Pool) {
                without_connection += 1;
                continue;
            }
            assert_eq!(outcome, Granted, "round {round}");
            assert_eq!(actor.release(), Done);
        }
        assert!(without_connection < 200, "{without_connection} of 2,000");
    });
}

/// The server does not detect the deadlock in time. The shorter limit ends it.
pub(crate) fn a_limit_shorter_than_the_search_for_deadlocks(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let (one, two) = (fixture.key("one"), fixture.key("two"));
        let [first, second] = fixture.actors();
        for actor in [&first, &second] {
            assert_eq!(
                actor.run_sql(SqlCommand::Run("SET deadlock_timeout = '1h'")),
                Done
            );
        }
        assert_eq!(first.acquire(&one, no_wait()), Granted);
        assert_eq!(second.acquire(&two, no_wait()), Granted);
        queue(fixture, &first, &two, LONG, 1);
        let short = Duration::from_millis(50);
        assert_eq!(second.acquire(&one, block(short)), Failed(TimedOut));
        assert_eq!(second.release(), Done);
        assert_eq!(first.finish(), Granted);
        assert_eq!([first.release(), first.release()], [Done, Done]);
    });
}

/// One session waits for the key, the other for a row that the first has changed.
pub(crate) fn a_row_and_a_key_in_one_cycle(adapter: AdapterUnderTest) {
    adapter.run(|fixture| {
        let table = TempObject::create("TABLE", "AS SELECT 0 AS number");
        // A command has a static text.
        let update: &'static str = format!("UPDATE {} SET number = number + 1", table.name).leak();
        let key = fixture.key("key");
        let [first, second] = fixture.actors();
        assert_eq!(
            first.run_sql(SqlCommand::Run("SET deadlock_timeout = '20ms'")),
            Done
        );
        assert_eq!(
            second.run_sql(SqlCommand::Run("SET deadlock_timeout = '1h'")),
            Done
        );
        assert_eq!(second.acquire(&key, no_wait()), Granted);
        assert_eq!(first.begin(), Done);
        assert_eq!(first.run_sql(SqlCommand::Run(update)), Done);
        let other = second.number(SqlCommand::Pid);
        second.start(Command::Sql(SqlCommand::Run(update)));
        let mut observer = connect();
        observer.wait_until_waiting(other);
        // Only the first session checks for deadlocks in time, so it is the victim.
        let victim = first.call(Command::XactAcquire(request(&key, block(LONG), true)));
        assert_eq!(victim, Failed(Deadlock));
        // Its transaction continues, with the row.
        assert_eq!(first.commit(), Done);
        assert_eq!(second.finish(), Done);
        assert_eq!(second.release(), Done);
        let number = observer.number(&format!("SELECT number FROM {}", table.name));
        assert_eq!(number, 2);
    });
}
