//! The lock's limit, the caller's timeout and the holder's release at the same time. The server
//! may report a timeout and still have granted the lock, or the caller may be gone at the grant.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{AdvisoryLocking, LockErrorKind, LockKey, LockOptions, WaitStrategy};
use testkit::counts::{assert_none_left, count};
use testkit::observer::{LockEntry, Observe};
use testkit::proxy::Proxy;
use testkit::server::{connect_to, fresh_key, raced_time_outs, url};

use crate::adapters::{Adapter, Borrowed, Call, Pooled};
use crate::pools::{Bb8, Deadpool, Mobc};

/// The calls that wait.
const CALLS: [Call; 4] = [
    Call::Acquire,
    Call::With,
    Call::WithTransaction,
    Call::InTransaction,
];

/// The calls with a timeout of the caller.
const WITH_CLIENT_TIMEOUT: [Call; 3] = [Call::Acquire, Call::With, Call::WithTransaction];

/// Number of parallel runs, each with its own connection and key.
const PARALLEL_RUNS: u32 = 4;

/// Limit of a call on a connection, and the first aim of the releases.
pub(crate) const LIMIT: Duration = Duration::from_millis(3);
const NO_TIMEOUT: Duration = Duration::from_secs(600);

/// Code of the warning about a `ROLLBACK` outside a transaction.
const NO_TRANSACTION_IN_PROGRESS: &str = "C25P01\0";

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    granted: u32,
    timed_out: u32,
    dropped: u32,
}

/// Result of a round for the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum RoundResult {
    Granted,
    TimedOut,
    /// The caller's timeout came first.
    Dropped,
    NoConnection,
}

/// Addresses of one server.
#[derive(Clone)]
struct Addresses {
    /// Address for the holder and the observer.
    server: String,
    /// Address for a call that may be dropped while it commits.
    commits: String,
    /// Address for the other calls.
    calls: String,
}

/// Runs rounds until this many have ended with either timeout.
async fn run_rounds<A: Adapter>(addresses: Addresses, until: u32) -> Counts {
    let mut adapters = [
        A::open(&addresses.calls).await,
        A::open(&addresses.commits).await,
    ];
    let (mut observer, mut key) = (connect_to(&addresses.server), fresh_key());
    let holder = Holder::start(addresses.server, A::SHORT_LIMIT);
    let mut counts = Counts::default();
    for round in 0_usize.. {
        if counts.timed_out + counts.dropped >= until {
            break;
        }
        // Every eighth caller has its own timeout at the same time. `InTransaction` has none:
        // SeaORM's own `begin`, dropped in flight, leaves its transaction to the next user.
        let has_timeout = round % 8 == 7;
        let call = if has_timeout {
            WITH_CLIENT_TIMEOUT[round / 8 % WITH_CLIENT_TIMEOUT.len()]
        } else {
            CALLS[round % CALLS.len()]
        };
        let what = format!("{}, {call:?}, round {round}", A::NAME);
        let is_dropped_in_commits = has_timeout && matches!(call, Call::WithTransaction);
        let adapter = &mut adapters[usize::from(is_dropped_in_commits)];
        let aim = holder.acquire(&key);
        let options = LockOptions::wait_up_to(A::SHORT_LIMIT).strategy(WaitStrategy::Block);
        holder.release_about(Instant::now() + aim);
        let call = adapter.call(call, &key, options);
        let timeout = if has_timeout { aim } else { NO_TIMEOUT };
        let ended = match tokio::time::timeout(timeout, call).await {
            Err(_) => RoundResult::Dropped,
            Ok(Ok(())) => RoundResult::Granted,
            // A loaded machine may need longer for a checkout than the limit allows.
            Ok(Err(error)) if error.kind() == LockErrorKind::Pool => RoundResult::NoConnection,
            Ok(Err(error)) => {
                assert_eq!(error.kind(), LockErrorKind::TimedOut, "{what}: {error:?}");
                RoundResult::TimedOut
            }
        };
        assert!(has_timeout || ended != RoundResult::Dropped, "{what} hangs");
        holder.finish_round((!has_timeout).then_some(ended));
        match ended {
            RoundResult::Granted => counts.granted += 1,
            RoundResult::TimedOut => counts.timed_out += 1,
            RoundResult::Dropped => counts.dropped += 1,
            RoundResult::NoConnection => {}
        }
        if ended == RoundResult::Dropped {
            observer.assert_free(&key, &what).await;
            adapter.check().await;
            assert_none_left(&key, &what);
            // A statement of the dropped call may still be on its way to the server. Its session
            // then acquires the old key for a moment, before it is terminated.
            key = fresh_key();
        } else {
            // No background work is left, so the lock table matches at once.
            let left = observer.lock_entries(&key);
            assert!(
                <[LockEntry]>::is_empty(&left),
                "{what}, {ended:?}: {left:?}"
            );
            assert_none_left(&key, &what);
        }
    }
    for adapter in &mut adapters {
        adapter.check().await;
    }
    counts
}

/// Runs rounds on several connections, until this many have ended with either timeout.
async fn run_in_parallel<A: Adapter + 'static>(addresses: Addresses, until: u32) -> Counts {
    count();
    let runs: Vec<_> = (0..PARALLEL_RUNS)
        .map(|_| {
            let until = until.div_ceil(PARALLEL_RUNS);
            tokio::spawn(run_rounds::<A>(addresses.clone(), until))
        })
        .collect();
    // All runs end before one is unwrapped: its panic drops the proxy, which would break the
    // connections of the others and hide the cause.
    let mut ended = Vec::new();
    for run in runs {
        ended.push(run.await);
    }
    let mut counts = Counts::default();
    for run in ended {
        let run = run.unwrap();
        counts.granted += run.granted;
        counts.timed_out += run.timed_out;
        counts.dropped += run.dropped;
    }
    assert!(counts.timed_out + counts.dropped >= until);
    counts
}

/// Runs a twentieth of the rounds over TLS, whose messages no proxy can read.
pub(crate) async fn race_time_outs_over_tls<A: Adapter + 'static>(server: String, tls: String) {
    let addresses = Addresses {
        server,
        commits: tls.clone(),
        calls: tls,
    };
    let counts = run_in_parallel::<A>(addresses, raced_time_outs().div_ceil(20)).await;
    println!("{} over TLS: {counts:?}", A::NAME);
}

async fn a_time_out_that_meets_the_grant_leaves_nothing<A: Adapter + 'static>() {
    let (proxy, commits) = (Proxy::start(), Proxy::start());
    let addresses = Addresses {
        server: url(),
        commits: commits.url(),
        calls: proxy.url(),
    };
    let counts = run_in_parallel::<A>(addresses, raced_time_outs()).await;
    let mut warnings = proxy.notices();
    warnings.extend(commits.notices().into_iter().filter(|warning| {
        !(A::ROLLS_BACK_BEHIND_A_COMMIT && warning.contains(NO_TRANSACTION_IN_PROGRESS))
    }));
    let of_commits = commits.notice_count();
    println!(
        "{}: {counts:?}, warnings about commits: {of_commits}",
        A::NAME
    );
    // A release of a lock that is not held would write one, also into the server's log.
    assert!(warnings.is_empty(), "warnings of the server: {warnings:?}");
}

enum Order {
    Acquire(LockKey),
    ReleaseAbout(Instant),
    /// The result of the round, if it adjusts the aim. The reply means that the lock is free.
    RoundResult(Option<RoundResult>),
}

/// A thread that holds the lock and releases it at about the limit.
struct Holder {
    orders: Sender<Order>,
    /// Time from the call to the release, with each reply.
    done: Receiver<Duration>,
}

impl Holder {
    fn start(server: String, limit: Duration) -> Self {
        let (orders, inbox) = channel();
        let (outbox, done) = channel();
        thread::spawn(move || hold(&server, limit, &inbox, &outbox));
        Self { orders, done }
    }

    /// Acquires the lock. Returns the time from the call to the release.
    fn acquire(&self, key: &LockKey) -> Duration {
        self.orders.send(Order::Acquire(key.clone())).unwrap();
        self.done.recv().unwrap()
    }

    fn release_about(&self, moment: Instant) {
        self.orders.send(Order::ReleaseAbout(moment)).unwrap();
    }

    fn finish_round(&self, ended: Option<RoundResult>) {
        self.orders.send(Order::RoundResult(ended)).unwrap();
        self.done.recv().unwrap();
    }
}

/// Adjusts the time of the release until four of five waits time out.
fn hold(server: &str, limit: Duration, orders: &Receiver<Order>, done: &Sender<Duration>) {
    const STEP: Duration = Duration::from_micros(50);
    const JITTER_MICROS: u64 = 200;
    let mut conn = connect_to(server);
    let mut aim = limit;
    while let Ok(Order::Acquire(key)) = orders.recv() {
        let guard = conn
            .acquire_advisory_lock(&key, LockOptions::no_wait())
            .unwrap();
        done.send(aim).unwrap();
        let Ok(Order::ReleaseAbout(moment)) = orders.recv() else {
            return;
        };
        let jitter = Duration::from_micros(fastrand::u64(..JITTER_MICROS));
        thread::sleep((moment + jitter).saturating_duration_since(Instant::now()));
        guard.release().unwrap();
        let Ok(Order::RoundResult(ended)) = orders.recv() else {
            return;
        };
        aim = match ended {
            Some(RoundResult::Granted) => aim + 4 * STEP,
            Some(RoundResult::TimedOut | RoundResult::Dropped) => aim.saturating_sub(STEP),
            Some(RoundResult::NoConnection) | None => aim,
        };
        done.send(aim).unwrap();
    }
}

macro_rules! on_adapters {
    ($($name:ident => $adapter:ty;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $name() {
            a_time_out_that_meets_the_grant_leaves_nothing::<$adapter>().await;
        }
    )*};
}
on_adapters! {
    borrowed => Borrowed;
    bb8 => Pooled<Bb8>;
    deadpool => Pooled<Deadpool>;
    mobc => Pooled<Mobc>;
    sea_orm => crate::sea_orm::SeaOrm;
    sqlx_connection => crate::sqlx::Borrowed;
    sqlx_pool => crate::sqlx::Pooled;
    client => crate::tokio_postgres::Borrowed;
    client_in_bb8 => crate::tokio_postgres::Bb8;
    client_in_deadpool => crate::tokio_postgres::Deadpool;
}
