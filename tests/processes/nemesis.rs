//! The nemesis: terminates sessions, kills and stops processes, restarts the server.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use diesel::sql_types::{Integer, Text};
use diesel::{Connection, QueryResult, QueryableByName, RunQueryDsl, sql_query};

use crate::check::{NemesisAction, NemesisEvent};
use crate::children::Children;
use crate::history::now;
use crate::work::APPLICATION;

/// Bound for operations that take milliseconds on an idle machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two restarts of the server. A restart takes half a second without contention.
const RESTART_INTERVAL: Duration = Duration::from_secs(7);

pub(crate) struct Nemesis {
    random: fastrand::Rng,
    pub(crate) events: Vec<NemesisEvent>,
    server: PgConnection,
    restarted: Instant,
}

#[derive(QueryableByName)]
struct Session {
    #[diesel(sql_type = Integer)]
    pid: i32,
    #[diesel(sql_type = Text)]
    application: String,
}

impl Session {
    /// The process whose lock manager opened the session.
    fn lock_manager_process(&self) -> Option<usize> {
        self.application
            .strip_prefix(APPLICATION)?
            .strip_prefix('.')?
            .parse()
            .ok()
    }
}

pub(crate) fn connect() -> PgConnection {
    let url = std::env::var("DATABASE_URL").expect("scripts/postgres sets it");
    let began = Instant::now();
    loop {
        match PgConnection::establish(&url) {
            Ok(conn) => return conn,
            Err(error) => assert!(began.elapsed() < TIMEOUT, "no server: {error}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

impl Nemesis {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            events: Vec::new(),
            server: connect(),
            restarted: Instant::now(),
        }
    }

    /// Pauses, then performs one random action.
    pub(crate) fn act(&mut self, children: &mut Children) {
        thread::sleep(Duration::from_millis(self.random.u64(5..100)));
        if self.restarted.elapsed() > RESTART_INTERVAL {
            let immediate = self.random.bool();
            self.restart(immediate);
            self.restarted = Instant::now();
            return;
        }
        match self.random.u8(..100) {
            0..60 => self.signal_a_session("pg_terminate_backend", |pid| {
                NemesisAction::Terminate { pid }
            }),
            60..75 => {
                self.signal_a_session("pg_cancel_backend", |pid| NemesisAction::Cancel { pid })
            }
            75..90 => self.stop(children),
            _ => self.kill(children),
        }
    }

    /// Signals a random session; in three of four cases one that holds a lock.
    fn signal_a_session(&mut self, function: &str, action: fn(i32) -> NemesisAction) {
        let holders =
            "AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)";
        let which = if self.random.u8(..4) == 0 {
            ""
        } else {
            holders
        };
        let sessions = self
            .sessions(which)
            .expect("the server answers its superuser");
        let Some(session) = self.random.choice(sessions.iter()) else {
            return;
        };
        let (pid, lock_manager) = (session.pid, session.lock_manager_process());
        let (action, from) = (action(pid), now());
        sql_query(format!("SELECT {function}({pid})"))
            .execute(&mut self.server)
            .expect("a superuser may");
        if let NemesisAction::Terminate { pid } = action {
            let began = Instant::now();
            while !self
                .sessions(&format!("AND pid = {pid}"))
                .expect("the server answers")
                .is_empty()
            {
                assert!(began.elapsed() < TIMEOUT, "a session does not end");
            }
        }
        self.events.push(NemesisEvent {
            action,
            from,
            until: now(),
            lock_manager,
        });
    }

    fn sessions(&mut self, which: &str) -> QueryResult<Vec<Session>> {
        let all = format!(
            "SELECT pid, application_name AS application FROM pg_stat_activity WHERE application_name LIKE '{APPLICATION}%'"
        );
        sql_query(format!("{all} {which} ORDER BY pid")).load(&mut self.server)
    }

    fn kill(&mut self, children: &mut Children) {
        let slot = self.random.usize(..children.count());
        let from = now();
        let process = children.replace(slot);
        let action = NemesisAction::Kill { process };
        self.events.push(NemesisEvent {
            action,
            from,
            until: now(),
            lock_manager: None,
        });
    }

    fn stop(&mut self, children: &Children) {
        let slot = self.random.usize(..children.count());
        let pause = Duration::from_millis(self.random.u64(1..150));
        let from = now();
        children.stop(slot, pause);
        self.events.push(NemesisEvent {
            action: NemesisAction::Stop,
            from,
            until: now(),
            lock_manager: None,
        });
    }

    fn restart(&mut self, immediate: bool) {
        let mode = if immediate { "immediate" } else { "fast" };
        let from = now();
        let status = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres"))
            .args(["ctl", "-m", mode, "-w", "-s", "restart"])
            .status()
            .unwrap();
        assert!(status.success(), "the server does not restart: {status}");
        self.server = connect();
        let action = NemesisAction::Restart { immediate };
        self.events.push(NemesisEvent {
            action,
            from,
            until: now(),
            lock_manager: None,
        });
    }
}
