//! Reports of held and awaited locks, on every kind of key, role and database.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use advisory_locking::{
    AdvisoryLocking, LockErrorKind, LockHolder, LockKey, LockMode, LockOptions,
    PooledAdvisoryLocking, RawLockKey,
};
use diesel::Connection;
use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use testkit::observer::Observe;
use testkit::server::{
    TIMEOUT, block, connect, connect_with, eventually, fresh_integer, fresh_key, fresh_pair,
    pool_of, reports,
};
use testkit::temp::{TempDatabase, TempRole};

fn pid(conn: &mut PgConnection) -> Option<i32> {
    i32::try_from(Observe::pid(conn)).ok()
}

#[test]
fn report_finds_every_kind_of_key() {
    let mut conn = connect();
    let holder = pid(&mut conn);
    let (number, (first, second)) = (fresh_integer(), fresh_pair());
    let keys = [
        LockKey::from(number),
        LockKey::from(-number),
        LockKey::from(i64::MIN + number),
        LockKey::from((first, second)),
        LockKey::from((second, -first)),
    ];
    for key in keys {
        let same_bits = match key.raw() {
            RawLockKey::Pair(first, second) => {
                let [a, b, c, d] = first.to_be_bytes();
                let [e, f, g, h] = second.to_be_bytes();
                LockKey::from(i64::from_be_bytes([a, b, c, d, e, f, g, h]))
            }
            RawLockKey::Single(number) => {
                let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
                let ends = [[a, b, c, d], [e, f, g, h]].map(i32::from_be_bytes);
                LockKey::from((ends[0], ends[1]))
            }
        };
        let mut guard = conn
            .acquire_advisory_lock(key.clone(), LockOptions::no_wait())
            .unwrap();
        let report = guard.advisory_lock_holders(key.clone()).unwrap();
        assert_eq!(report.key, key.raw());
        assert_eq!(report.holders[0].session.pid, holder, "{key}");
        assert_eq!(report.holders[0].mode, LockMode::Exclusive);
        let other = guard.advisory_lock_holders(same_bits).unwrap();
        assert!(other.holders.is_empty(), "the other key space: {other:?}");
        let all = guard.advisory_locks().unwrap();
        assert!(all.iter().any(|report| report.key == key.raw()), "{all:?}");
        guard.release().unwrap();
    }
}

/// Each report is one moment of the lock table, whatever the sessions do.
#[test]
fn report_beside_contended_cycles_has_no_contradiction() {
    const SESSIONS: usize = 4;
    let key = fresh_key();
    let stop = AtomicBool::new(false);
    let (mut held, mut awaited) = (0, 0);
    thread::scope(|scope| {
        for number in 0..SESSIONS {
            let (key, stop) = (&key, &stop);
            scope.spawn(move || {
                let mut conn = connect();
                let options = if number == 0 {
                    block().shared()
                } else {
                    block()
                };
                while !stop.load(Ordering::Relaxed) {
                    let guard = conn.acquire_advisory_lock(key, options).unwrap();
                    guard.release().unwrap();
                }
            });
        }
        let _stops_the_sessions = StoreOnDrop(&stop);
        let mut observer = connect();
        for _ in 0..reports() {
            let report = observer.advisory_lock_holders(&key).unwrap();
            let modes: Vec<_> = report.holders.iter().map(|holder| holder.mode).collect();
            let exclusive = modes.contains(&LockMode::Exclusive);
            assert!(!exclusive || modes.len() == 1, "two holders: {report:?}");
            let is_held = !modes.is_empty();
            assert!(
                is_held || report.waiters.is_empty(),
                "no holder: {report:?}"
            );
            for waiter in &report.waiters {
                let holds = |holder: &LockHolder| holder.session.pid == waiter.session.pid;
                assert!(!report.holders.iter().any(holds), "both: {report:?}");
            }
            held += u32::from(is_held);
            awaited += u32::from(!report.waiters.is_empty());
        }
    });
    println!(
        "{held} of {} reports with holders, {awaited} with waiters",
        reports()
    );
    assert!(held > 0 && awaited > 0, "the sessions contend");
}

/// Stores `true` when it is dropped, also by a panic.
struct StoreOnDrop<'a>(&'a AtomicBool);

impl Drop for StoreOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn report_ignores_another_database() {
    let database = TempDatabase::create();
    let key = fresh_key();
    let mut there = database.connect();
    let guard = there
        .acquire_advisory_lock(key.clone(), LockOptions::no_wait())
        .unwrap();
    let mut here = connect();
    assert!(
        here.advisory_lock_holders(key.clone())
            .unwrap()
            .holders
            .is_empty()
    );
    let all = here.advisory_locks().unwrap();
    assert!(all.iter().all(|report| report.key != key.raw()), "{all:?}");
    guard.release().unwrap();
}

#[test]
fn report_names_waiter_and_its_blockers() {
    let key = fresh_key();
    let mut holders = [connect(), connect()];
    let [first, second] = &mut holders;
    let blockers = [pid(first), pid(second)].map(Option::unwrap);
    let shared = || LockOptions::no_wait().shared();
    let guards = [
        first.acquire_advisory_lock(key.clone(), shared()).unwrap(),
        second.acquire_advisory_lock(key.clone(), shared()).unwrap(),
    ];
    thread::scope(|scope| {
        let waiting = key.clone();
        let waiter = scope.spawn(move || {
            let mut conn = connect_with("application_name=report%20waiter");
            let guard = conn.acquire_advisory_lock(waiting, block()).unwrap();
            guard.release().unwrap();
        });
        let mut observer = connect();
        eventually("the waiter queues", || {
            !observer
                .advisory_lock_holders(key.clone())
                .unwrap()
                .waiters
                .is_empty()
        });
        let report = observer.advisory_lock_holders(key.clone()).unwrap();
        assert_eq!(report.holders.len(), 2);
        assert!(
            report
                .holders
                .iter()
                .all(|holder| holder.mode == LockMode::Shared)
        );
        let waiter_seen = &report.waiters[0];
        let mut blocked_by = waiter_seen.blocked_by.clone();
        blocked_by.sort_unstable();
        let mut expected = blockers;
        expected.sort_unstable();
        assert_eq!(blocked_by, expected);
        assert_eq!(
            waiter_seen.session.application.as_deref(),
            Some("report waiter")
        );
        let details = waiter_seen.session.details.as_ref().unwrap();
        assert_eq!(details.state.as_deref(), Some("active"));
        assert!(details.session_age.is_some_and(|age| age < TIMEOUT));
        for guard in guards {
            guard.release().unwrap();
        }
        waiter.join().unwrap();
    });
}

/// The waiter with the greater process id waits longer. PostgreSQL 13 does not report the start of
/// a wait, so the process ids decide there.
#[test]
fn waiters_are_reported_longest_wait_first() {
    let (mut holder, mut observer, key) = (connect(), connect(), fresh_key());
    let mut waiters = [connect(), connect()].map(|mut conn| (pid(&mut conn), conn));
    waiters.sort_by_key(|(pid, _)| std::cmp::Reverse(*pid));
    let mut expected = [waiters[0].0, waiters[1].0];
    if observer.version() < 140_000 {
        expected.reverse();
    }
    let guard = holder
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .unwrap();
    thread::scope(|scope| {
        for (number, (_, mut conn)) in waiters.into_iter().enumerate() {
            let key = &key;
            scope.spawn(move || {
                let guard = conn.acquire_advisory_lock(key, block()).unwrap();
                guard.release().unwrap();
            });
            observer.wait_until_waiters(key, number + 1);
        }
        let report = observer.advisory_lock_holders(&key).unwrap();
        guard.release().unwrap();
        let order: Vec<_> = report
            .waiters
            .iter()
            .map(|waiter| waiter.session.pid)
            .collect();
        assert_eq!(order, expected);
    });
}

/// The limit cuts the rows of locks without waiters.
#[test]
fn report_of_all_locks_has_at_most_a_thousand_rows() {
    // All of its locks are those of this test.
    let database = TempDatabase::create();
    let [mut holder, mut waiter, mut observer] = [(); 3].map(|()| database.connect());
    holder.run("SELECT pg_advisory_lock(number) FROM generate_series(1, 1500) AS number");
    let key = LockKey::from(1_500_i64);
    let reports = thread::scope(|scope| {
        scope.spawn(|| {
            let guard = waiter.acquire_advisory_lock(&key, block()).unwrap();
            guard.release().unwrap();
        });
        observer.wait_until_waiters(&key, 1);
        let reports = observer.advisory_locks();
        holder.run("SELECT pg_advisory_unlock_all()");
        reports.unwrap()
    });
    let rows = reports
        .iter()
        .map(|report| report.holders.len() + report.waiters.len());
    assert_eq!(rows.sum::<usize>(), 1_000);
    let awaited = reports.iter().find(|report| report.key == key.raw());
    assert_eq!(awaited.map(|report| report.waiters.len()), Some(1));
}

#[test]
fn pool_reports_locks_and_capabilities() {
    let (pool, mut conn, key) = (pool_of(1), connect(), fresh_key());
    let guard = conn
        .acquire_advisory_lock(&key, LockOptions::no_wait())
        .unwrap();
    let all = pool.advisory_locks().unwrap();
    assert!(all.iter().any(|report| report.key == key.raw()), "{all:?}");
    assert!(pool.capabilities().unwrap().provides_mutual_exclusion());
    guard.release().unwrap();
}

#[test]
fn role_without_privileges_sees_the_minimum() {
    let (owner, stranger, monitor) = (TempRole::create(), TempRole::create(), TempRole::create());
    connect().run(&format!("GRANT pg_read_all_stats TO {}", monitor.name()));
    let key = fresh_key();
    let connect_as = |role: &TempRole| connect_with(&role.login());
    let mut holder = connect_as(&owner);
    // Terminal escapes reach the report; its `Display` replaces them.
    holder
        .batch_execute("SET application_name = E'billing \\033[31m'")
        .unwrap();
    let holder_pid = pid(&mut holder);
    let guard = holder
        .acquire_advisory_lock(key.clone(), LockOptions::no_wait())
        .unwrap();
    let session = |role: &TempRole| {
        let report = connect_as(role).advisory_lock_holders(key.clone()).unwrap();
        report.holders.into_iter().next().unwrap().session
    };
    let hidden = session(&stranger);
    assert_eq!(hidden.pid, holder_pid);
    assert_eq!(hidden.user.as_deref(), Some(owner.name()));
    assert_eq!(hidden.details, None);
    assert_eq!(hidden.held_at_least(), None);
    for role in [&owner, &monitor] {
        let seen = session(role);
        let details = seen.details.as_ref().unwrap();
        assert_eq!(details.state.as_deref(), Some("idle"));
        assert_eq!(details.transaction_age, None);
        assert!(seen.held_at_least().is_some_and(|held| held < TIMEOUT));
        let text = seen.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(text.contains("billing"), "{text:?}");
    }
    guard.release().unwrap();
}

/// All databases of a server share its roles, and each stores a name in its own encoding.
#[test]
fn report_shows_a_role_name_of_another_encoding() {
    let in_encoding = |encoding: &str| {
        let options =
            format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        TempDatabase::create_with(&options)
    };
    // In this encoding, SQL can make a name of any bytes.
    let any_bytes = in_encoding("SQL_ASCII");
    let (utf8, latin1) = (in_encoding("UTF8"), in_encoding("LATIN1"));
    let (mut admin, role, key) = (any_bytes.connect(), TempRole::create(), fresh_key());
    let name = role.name();
    let oid = admin.number(&format!("'{name}'::regrole::oid::int8"));
    // `ALTER ROLE` of PostgreSQL 13 checks the bytes, as of UTF8.
    let mut rename = |to: &str| {
        admin.run(&format!(
            "UPDATE pg_authid SET rolname = ({to})::name WHERE oid = {oid}"
        ));
    };
    for (database, shown) in [
        (&any_bytes, "\u{fffd}"),
        (&utf8, "\u{fffd}"),
        (&latin1, "é"),
    ] {
        let mut holder = database.connect_as(&role);
        let held = holder.acquire_advisory_lock(&key, LockOptions::no_wait());
        // A backslash, and `é` in LATIN1.
        rename(&format!("'{name}' || chr(92) || chr(233)"));
        let mut observer = database.connect();
        let reported = observer.advisory_lock_holders(&key);
        let all = observer.advisory_locks();
        rename(&format!("'{name}'"));
        let session = &reported.unwrap().holders[0].session;
        assert_eq!(session.user.as_deref(), Some(&*format!("{name}\\{shown}")));
        assert_eq!(all.unwrap().len(), 1);
        held.unwrap().release().unwrap();
    }
}

/// The session is older than its transaction, and its transaction than the state.
#[test]
fn report_shows_the_address_and_the_ages_of_a_session() {
    let (mut holder, mut observer, key) = (connect(), connect(), fresh_key());
    let address = holder.text("COALESCE(pg_catalog.host(pg_catalog.inet_client_addr()), '')");
    let report = holder.transaction(|holder| {
        holder.acquire_advisory_xact_lock(&key, LockOptions::no_wait())?;
        diesel::QueryResult::Ok(observer.advisory_lock_holders(&key)?)
    });
    let details = report.unwrap().holders[0].session.details.clone().unwrap();
    assert_eq!(details.client_address.unwrap_or_default(), address);
    assert!(details.state_age.is_some());
    assert!(details.transaction_age > details.state_age);
    assert!(details.session_age > details.transaction_age);
}

#[test]
fn report_in_an_aborted_transaction_is_an_error() {
    let mut conn = connect();
    conn.begin_test_transaction().unwrap();
    conn.batch_execute("SELECT 1/0").unwrap_err();
    conn.advisory_lock_holders(fresh_key()).unwrap_err();
}

#[test]
fn deadlock_error_names_holder() {
    let keys = [fresh_key(), fresh_key()];
    let mut conns = [connect(), connect()];
    let pids = conns.each_mut().map(|conn| pid(conn).unwrap());
    let barrier = std::sync::Barrier::new(2);
    let ended = thread::scope(|scope| {
        let mut sessions = Vec::new();
        for (index, conn) in conns.iter_mut().enumerate() {
            let (own, other) = (keys[index].clone(), keys[1 - index].clone());
            let barrier = &barrier;
            sessions.push(scope.spawn(move || {
                let mut guard = conn
                    .acquire_advisory_lock(own, LockOptions::no_wait())
                    .unwrap();
                barrier.wait();
                let ended = guard.acquire_advisory_lock(other, block()).map(drop);
                guard.release().unwrap();
                ended
            }));
        }
        let sessions = sessions.into_iter().map(|session| session.join().unwrap());
        sessions.collect::<Vec<_>>()
    });
    let victims: Vec<_> = (0..2).filter(|index| ended[*index].is_err()).collect();
    assert_eq!(victims.len(), 1, "{ended:?}");
    let error = ended[victims[0]].as_ref().unwrap_err();
    assert_eq!(error.kind(), LockErrorKind::Deadlock);
    let holder = &error.holders()[0].session;
    assert_eq!(holder.pid, Some(pids[1 - victims[0]]));
    let text = error.to_string();
    assert!(
        text.contains(&format!(", held by pid {}", pids[1 - victims[0]])),
        "{text}"
    );
}
