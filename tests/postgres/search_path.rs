//! A [`search_path`](https://www.postgresql.org/docs/current/ddl-schemas.html#DDL-SCHEMAS-PATH) on
//! which fake functions, operators, types and tables precede those of `pg_catalog`.

use std::time::Duration;

use advisory_locking::session::{
    BatchMode, BatchReply, LockBatch, LockOp, LockOpKind, LockSession, Statement, TokenSource,
};
use advisory_locking::{
    AdvisoryLocking, LockErrorKind, LockKey, LockMode, LockOptions, WaitStrategy,
};
use diesel::Connection;
use testkit::observer::Observe;
use testkit::server::{fresh_key, kind_of};
use testkit::temp::TempDatabase;

/// Each fake would report a lock that is not held, or would prevent a release.
const FAKES: &str = "
    CREATE SCHEMA fake;
    DO $$ DECLARE name text; BEGIN
        FOREACH name IN ARRAY ARRAY['', '_shared'] LOOP
            EXECUTE format('CREATE FUNCTION fake.pg_advisory_lock%s(int8) RETURNS void LANGUAGE sql AS ''''', name);
            EXECUTE format('CREATE FUNCTION fake.pg_advisory_lock%s(int4, int4) RETURNS void LANGUAGE sql AS ''''', name);
            EXECUTE format('CREATE FUNCTION fake.pg_advisory_xact_lock%s(int8) RETURNS void LANGUAGE sql AS ''''', name);
            EXECUTE format('CREATE FUNCTION fake.pg_advisory_xact_lock%s(int4, int4) RETURNS void LANGUAGE sql AS ''''', name);
            EXECUTE format('CREATE FUNCTION fake.pg_try_advisory_lock%s(int8) RETURNS bool LANGUAGE sql AS ''SELECT true''', name);
            EXECUTE format('CREATE FUNCTION fake.pg_try_advisory_lock%s(int4, int4) RETURNS bool LANGUAGE sql AS ''SELECT true''', name);
            EXECUTE format('CREATE FUNCTION fake.pg_try_advisory_xact_lock%s(int8) RETURNS bool LANGUAGE sql AS ''SELECT true''', name);
            EXECUTE format('CREATE FUNCTION fake.pg_try_advisory_xact_lock%s(int4, int4) RETURNS bool LANGUAGE sql AS ''SELECT true''', name);
            EXECUTE format('CREATE FUNCTION fake.pg_advisory_unlock%s(int8) RETURNS bool LANGUAGE sql AS ''SELECT true''', name);
            EXECUTE format('CREATE FUNCTION fake.pg_advisory_unlock%s(int4, int4) RETURNS bool LANGUAGE sql AS ''SELECT true''', name);
        END LOOP;
        FOREACH name IN ARRAY ARRAY['int2', 'int4', 'oid', 'text', 'name'] LOOP
            EXECUTE format('CREATE FUNCTION fake.never(%s, %s) RETURNS bool LANGUAGE sql AS ''SELECT false''', name, name);
            EXECUTE format('CREATE OPERATOR fake.= (LEFTARG = %s, RIGHTARG = %s, FUNCTION = fake.never)', name, name);
        END LOOP;
    END $$;
    DO $$ DECLARE name text; BEGIN
        FOREACH name IN ARRAY ARRAY['&', '>>', '<<'] LOOP
            EXECUTE format('CREATE FUNCTION fake.%I(int8, int4) RETURNS int8 LANGUAGE sql AS ''SELECT 0::int8''', name);
            EXECUTE format('CREATE OPERATOR fake.%s (LEFTARG = int8, RIGHTARG = int4, FUNCTION = fake.%I)', name, name);
        END LOOP;
        FOREACH name IN ARRAY ARRAY['=', '<', '>', '>='] LOOP
            EXECUTE format('CREATE FUNCTION fake.%I(int8, int4) RETURNS bool LANGUAGE sql AS ''SELECT false''', name);
            EXECUTE format('CREATE OPERATOR fake.%s (LEFTARG = int8, RIGHTARG = int4, FUNCTION = fake.%I)', name, name);
        END LOOP;
    END $$;
    CREATE FUNCTION fake.unnest(int8[]) RETURNS SETOF int8 LANGUAGE sql AS 'SELECT 0::int8 WHERE false';
    CREATE FUNCTION fake.pg_current_xact_id() RETURNS int8 LANGUAGE sql AS 'SELECT 0::int8';
    CREATE FUNCTION fake.pg_logical_emit_message(bool, text, text) RETURNS pg_lsn LANGUAGE sql AS 'SELECT NULL::pg_lsn';
    CREATE FUNCTION fake.nextval(regclass) RETURNS int8 LANGUAGE sql AS 'SELECT 0::int8';
    CREATE AGGREGATE fake.array_agg(int8) (SFUNC = pg_catalog.int8larger, STYPE = int8);
    CREATE AGGREGATE fake.min(int8) (SFUNC = pg_catalog.int8larger, STYPE = int8);
    CREATE AGGREGATE fake.bool_or(bool) (SFUNC = pg_catalog.booland_statefunc, STYPE = bool);
    CREATE TABLE fake.pg_sequence (seqrelid oid);
    CREATE FUNCTION fake.never(timestamptz, timestamptz) RETURNS bool LANGUAGE sql AS 'SELECT false';
    CREATE OPERATOR fake.<> (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = fake.never);
    CREATE FUNCTION fake.pg_backend_pid() RETURNS int4 LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION fake.current_setting(text, bool) RETURNS text LANGUAGE sql AS 'SELECT ''fake''';
    CREATE FUNCTION fake.set_config(text, text, bool) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
    CREATE DOMAIN fake.int4 AS pg_catalog.text;
    CREATE DOMAIN fake.int8 AS pg_catalog.text;
    CREATE DOMAIN fake.timestamptz AS pg_catalog.text;
    CREATE DOMAIN fake.oid AS pg_catalog.text;
    CREATE TABLE fake.pg_locks (locktype text);
    CREATE TABLE fake.pg_database (datname text)";

#[test]
fn statements_call_pg_catalog_only() {
    let database = TempDatabase::create();
    database.connect().run(FAKES);
    let mut observer = database.connect();
    database.set("search_path = fake, pg_catalog");
    let (mut first, mut second) = (database.connect(), database.connect());
    let fakes_are_called = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE 1 = 1";
    let number_of_sessions = diesel::dsl::sql::<diesel::sql_types::BigInt>(fakes_are_called);
    let count: i64 = diesel::RunQueryDsl::get_result(number_of_sessions, &mut first).unwrap();
    assert_eq!(count, 0, "the fakes are effective");
    let first_pid = first.number("pg_catalog.pg_backend_pid()");
    let second_pid = second.number("pg_catalog.pg_backend_pid()");
    assert_ne!(first_pid, second_pid);
    assert_ne!(first.number("pg_backend_pid()"), first_pid);

    for key in [fresh_key(), LockKey::from((1, -2))] {
        for shared in [false, true] {
            let mode = if shared { "ShareLock" } else { "ExclusiveLock" };
            let own = LockOptions::no_wait();
            let own = if shared { own.shared() } else { own };
            let guard = first.acquire_advisory_lock(&key, own).unwrap();
            assert_eq!(observer.held_modes(&key, first_pid), mode);

            let limited =
                LockOptions::wait_up_to(Duration::from_millis(10)).strategy(WaitStrategy::Block);
            let ended = second.acquire_advisory_lock(&key, limited).map(drop);
            assert_eq!(kind_of(ended), Some(LockErrorKind::TimedOut));
            second
                .transaction(|second| {
                    let ended = second.acquire_advisory_xact_lock(&key, limited);
                    assert_eq!(kind_of(ended), Some(LockErrorKind::TimedOut));
                    diesel::QueryResult::Ok(())
                })
                .unwrap();
            guard.release().unwrap();
            assert_eq!(observer.held_modes(&key, first_pid), "");
        }
        second
            .transaction(|second| {
                second
                    .acquire_advisory_xact_lock(&key, LockOptions::no_wait())
                    .unwrap();
                assert_eq!(observer.held_modes(&key, second_pid), "ExclusiveLock");
                diesel::QueryResult::Ok(())
            })
            .unwrap();
    }
}

#[test]
fn batches_call_pg_catalog_only() {
    let database = TempDatabase::create();
    let mut observer = database.connect();
    observer.run(FAKES);
    observer.run("CREATE SEQUENCE public.fencing; CREATE DOMAIN fake.regclass AS pg_catalog.text; CREATE DOMAIN fake.text AS pg_catalog.int4");
    database.set("search_path = fake, pg_catalog");
    let mut conn = database.connect();
    let pid = conn.number("pg_catalog.pg_backend_pid()");
    let fenced = LockOpKind::Acquire { with_token: true };
    for tokens in [
        TokenSource::TransactionId,
        TokenSource::Sequence("public.fencing".into()),
    ] {
        for key in [fresh_key(), LockKey::from((1, -2))] {
            for (mode, shown) in [
                (LockMode::Exclusive, "ExclusiveLock"),
                (LockMode::Shared, "ShareLock"),
            ] {
                let mut ask = |kind, step| {
                    let step = LockOp::new(step, key.raw(), mode);
                    let pid = i32::try_from(pid).unwrap();
                    // With a pid, one operation without a token would use the short text.
                    let pid = if step.kind() == LockOpKind::Release {
                        0
                    } else {
                        pid
                    };
                    let batch = LockBatch::new(kind, pid, vec![step], tokens.clone());
                    let row = conn.session_query(&Statement::Batch(batch)).unwrap();
                    BatchReply::from_row(row, pid).unwrap()
                };
                for (kind, step) in [
                    (BatchMode::Execute, LockOpKind::Release),
                    (BatchMode::Compensate, fenced),
                ] {
                    let row = ask(BatchMode::Execute, fenced);
                    assert!(row.answers.unwrap()[0] >= Some(1), "{tokens:?}");
                    assert!(row.token >= Some(1), "{tokens:?}");
                    assert_eq!(observer.held_modes(&key, pid), shown);
                    let row = ask(kind, step);
                    assert_eq!(row.answers, Some(vec![Some(1)]), "{kind:?}");
                    assert_eq!(observer.held_modes(&key, pid), "");
                }
                for (step, shown) in [
                    (LockOpKind::Acquire { with_token: false }, shown),
                    (LockOpKind::Release, ""),
                ] {
                    let step = LockOp::new(step, key.raw(), mode);
                    let own_pid = i32::try_from(pid).unwrap();
                    let tokens = tokens.clone();
                    let batch = LockBatch::new(BatchMode::Execute, own_pid, vec![step], tokens);
                    let row = conn.session_query(&Statement::Batch(batch)).unwrap();
                    let reply = BatchReply::from_row(row, own_pid).unwrap();
                    assert_eq!(reply.answers, Some(vec![Some(1)]));
                    assert_eq!(observer.held_modes(&key, pid), shown);
                }
            }
        }
    }
}
