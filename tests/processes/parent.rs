//! One run: starts the processes and the nemesis, ends them, and checks the history.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, RunQueryDsl, sql_query};

use crate::check::{FinalState, History, NemesisAction, contradictions};
use crate::children::Children;
use crate::client::ClientKind;
use crate::history::{self, Mode};
use crate::nemesis::{Nemesis, TIMEOUT, connect};
use crate::storage::Storage;
use crate::work::{FENCED_TABLE, KEYS, TABLE, key};

/// Two of each kind.
const PROCESSES: usize = 2 * ClientKind::ALL.len();

fn number_from(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")),
    )
}

pub(crate) fn run() {
    let seconds = number_from("ADVISORY_LOCKING_NEMESIS_SECONDS").unwrap_or(60);
    let seed = number_from("ADVISORY_LOCKING_NEMESIS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("processes: {seconds} s, ADVISORY_LOCKING_NEMESIS_SEED={seed}");

    let logged_before = server_log().len();
    let directory = Directory::create();
    let counters = Counters::create();
    let mut nemesis = Nemesis::new(seed);
    let mut children = Children::start(PROCESSES, &directory.0, seed);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        nemesis.act(&mut children);
    }
    let records = children.end();

    let mut history = History::default();
    for (process, (_, record)) in records.iter().enumerate() {
        history.add(process, history::read(record));
    }
    let storage = Storage::new(&directory.0);
    let finals: Vec<FinalState> = (0..KEYS)
        .map(|key| FinalState {
            number: counters.read(TABLE, key),
            fenced: counters.read(FENCED_TABLE, key),
            filed: storage.read(key),
        })
        .collect();
    let mut found = contradictions(&history, &nemesis.events, &finals);
    found.extend(remaining_locks(logged_before));
    print_summary(&history, &nemesis, records.len(), &finals, found.len());
    for contradiction in found.iter().take(20) {
        println!("  {contradiction}");
    }
    assert!(
        found.is_empty(),
        "{} contradictions; repeat with seed {seed}",
        found.len()
    );
    // The run must contain enough events to be a test.
    let happened =
        |is: fn(&NemesisAction) -> bool| nemesis.events.iter().any(|event| is(&event.action));
    assert!(history.holds.len() > 100, "hardly anything was locked");
    assert!(
        happened(|action| matches!(action, NemesisAction::Terminate { .. })),
        "no session was ended"
    );
    if seconds >= 30 {
        assert!(
            happened(|action| matches!(action, NemesisAction::Restart { .. })),
            "the server was never restarted"
        );
        assert!(
            happened(|action| matches!(action, NemesisAction::Kill { .. })),
            "no process was killed"
        );
        for outcome in [
            "reported lost",
            "dropped while held",
            "dropped while waiting",
        ] {
            assert!(history.outcomes.contains_key(outcome), "none was {outcome}");
        }
        // A process whose calls all fail has no interval to check.
        for kind in ClientKind::ALL {
            for mode in [Mode::Exclusive, Mode::Shared] {
                let mut holds = history.holds.iter();
                let released = holds.any(|hold| {
                    let (kind_of_process, _) = &records[hold.process];
                    *kind_of_process == kind && hold.mode == mode && hold.is_ok()
                });
                assert!(released, "{kind:?}: no {mode:?} lock was held and released");
            }
        }
    }
}

fn print_summary(
    history: &History,
    nemesis: &Nemesis,
    processes: usize,
    finals: &[FinalState],
    found: usize,
) {
    let modes = |mode| {
        history
            .holds
            .iter()
            .filter(|hold| hold.mode == mode)
            .count()
    };
    let events = |is: fn(&NemesisAction) -> bool| {
        nemesis
            .events
            .iter()
            .filter(|event| is(&event.action))
            .count()
    };
    println!(
        "processes: {processes} in all; {} locks granted, {} exclusive and {} shared",
        history.holds.len(),
        modes(Mode::Exclusive),
        modes(Mode::Shared)
    );
    for (outcome, count) in &history.outcomes {
        println!("  {outcome}: {count}");
    }
    println!(
        "  nemesis: {} sessions ended, {} cancelled, {} processes killed, {} stopped; restarts: {} fast, {} immediate",
        events(|action| matches!(action, NemesisAction::Terminate { .. })),
        events(|action| matches!(action, NemesisAction::Cancel { .. })),
        events(|action| matches!(action, NemesisAction::Kill { .. })),
        events(|action| matches!(action, NemesisAction::Stop)),
        events(|action| matches!(action, NemesisAction::Restart { immediate: false })),
        events(|action| matches!(action, NemesisAction::Restart { immediate: true })),
    );
    let stale = history.holds.iter().filter(|hold| hold.stale).count();
    let sum = |of: fn(&FinalState) -> u64| finals.iter().map(of).sum::<u64>();
    println!(
        "  counters: {} in the database, {} in files, {} fenced, {stale} stale writes refused; contradictions (overlaps, lost updates, false reports): {found}",
        sum(|last| last.number),
        sum(|last| last.filed),
        sum(|last| last.fenced)
    );
}

/// The directory of records and files. A failed test keeps it.
struct Directory(PathBuf);

impl Directory {
    fn create() -> Self {
        let path =
            env::temp_dir().join(format!("advisory-locking-processes.{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("the records are in {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(Path::new(&self.0));
        }
    }
}

/// The table of the counters.
struct Counters;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

fn query_number(conn: &mut PgConnection, query: String) -> u64 {
    let row: Number = sql_query(query).get_result(conn).unwrap();
    u64::try_from(row.number).unwrap()
}

impl Counters {
    fn create() -> Self {
        // Acknowledged writes must survive an immediate restart. scripts/postgres turns
        // `synchronous_commit` off for the whole server.
        let statements = format!(
            "CREATE TABLE {TABLE} AS SELECT key::int, 0::int8 AS number FROM generate_series(0, {KEYS} - 1) AS key; \
             CREATE TABLE {FENCED_TABLE} AS SELECT key, number, 0::int8 AS token FROM {TABLE}; \
             DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = on', current_database()); END $$"
        );
        connect().batch_execute(&statements).unwrap();
        Self
    }

    fn read(&self, table: &str, key: usize) -> u64 {
        query_number(
            &mut connect(),
            format!("SELECT number FROM {table} WHERE key = {key}"),
        )
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        let statements = format!(
            "DROP TABLE {TABLE}, {FENCED_TABLE}; \
             DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET synchronous_commit', current_database()); END $$"
        );
        let _ = connect().batch_execute(&statements);
    }
}

/// The server's log, including that of earlier tests.
fn server_log() -> String {
    let log = env::var("ADVISORY_LOCKING_PGLOG").expect("scripts/postgres sets it");
    String::from_utf8_lossy(&fs::read(log).unwrap()).into_owned()
}

/// Reports locks that are still held, and log entries of releases without a lock.
fn remaining_locks(logged_before: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut conn = connect();
    for number in 0..KEYS {
        let condition = key(number).pg_locks().sql_condition();
        let locks = format!("SELECT count(*) AS number FROM pg_locks WHERE {condition}");
        let began = Instant::now();
        while query_number(&mut conn, locks.clone()) > 0 {
            if began.elapsed() > TIMEOUT {
                found.push(format!("key {number} is still locked"));
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    let log = server_log().split_off(logged_before);
    for trace in ["you don't own a lock", "PANIC"] {
        if log.contains(trace) {
            found.push(format!("the server's log has: {trace}"));
        }
    }
    found
}
