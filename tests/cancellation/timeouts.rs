//! The lock's limit, the caller's own time-out and the release by the holder, all at the same moment. The server then reports a time-out and
//! may have granted the lock; or nobody is left to hear of the grant.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use advisory_locking::{AdvisoryLocking, LockErrorKind, LockKey, LockOptions, WaitStrategy};
use diesel::{Connection, PgConnection};

use crate::adapters::{Adapter, Borrowed, Call, Pooled};
use crate::counted::Counted;
use crate::observer::{Held, Observer, database_url, fresh_key};
use crate::pools::{Bb8, Deadpool, Mobc};
use crate::rounds::time_outs;

/// The calls that wait, one after the other.
const CALLS: [Call; 4] = [
    Call::Acquire,
    Call::With,
    Call::WithTransaction,
    Call::InTransaction,
];

const IMPATIENT: [Call; 3] = [Call::Acquire, Call::With, Call::WithTransaction];

/// So many run at the same time, each with a connection and a key of its own, for they do little but wait.
const LANES: u32 = 4;

const LIMIT: Duration = Duration::from_millis(3);
const FOR_EVER: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, Default)]
struct Met {
    granted: u32,
    timed_out: u32,
    dropped: u32,
}

/// What a round was for the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    Granted,
    TimedOut,
    /// The caller lost patience first.
    Dropped,
}

/// Plays rounds until so many have timed out, one way or the other.
async fn play<A: Adapter>(url: &str, until: u32) -> Met {
    let (mut adapter, mut observer, key) = (A::open(url).await, Observer::new(), fresh_key());
    let holder = Holder::start(key.clone());
    let mut met = Met::default();
    for round in 0_usize.. {
        if met.timed_out + met.dropped >= until {
            break;
        }
        // Every fourth caller loses patience at the same moment. Not one that begins a transaction by itself: SeaORM's own begin, dropped in
        // flight, leaves it to the next user of the connection.
        let impatient = round % 4 == 3;
        let call = if impatient {
            IMPATIENT[round / 4 % IMPATIENT.len()]
        } else {
            CALLS[round % CALLS.len()]
        };
        let what = format!("{}, {call:?}, round {round}", A::NAME);
        let aim = holder.takes();
        let options = LockOptions::wait_up_to(LIMIT).strategy(WaitStrategy::Block);
        holder.releases_about(Instant::now() + aim);
        let call = adapter.call(call, &key, options);
        let patience = if impatient { aim } else { FOR_EVER };
        let ended = match tokio::time::timeout(patience, call).await {
            Err(_) => Ended::Dropped,
            Ok(Ok(())) => Ended::Granted,
            Ok(Err(error)) => {
                assert_eq!(error.kind(), LockErrorKind::TimedOut, "{what}: {error:?}");
                Ended::TimedOut
            }
        };
        assert!(impatient || ended != Ended::Dropped, "{what} hangs");
        holder.has_released((!impatient).then_some(ended));
        match ended {
            Ended::Granted => met.granted += 1,
            Ended::TimedOut => met.timed_out += 1,
            Ended::Dropped => met.dropped += 1,
        }
        if ended == Ended::Dropped {
            observer.assert_free(&key, &what).await;
            adapter.check().await;
        } else {
            // Nobody has to be waited for: what was reported is so.
            let left = observer.shown(&key);
            assert!(<[Held]>::is_empty(&left), "{what}, {ended:?}: {left:?}");
        }
    }
    adapter.check().await;
    met
}

async fn a_time_out_that_meets_the_grant_leaves_nothing<A: Adapter + 'static>() {
    let counted = Counted::new();
    let lanes: Vec<_> = (0..LANES)
        .map(|_| {
            let url = counted.url();
            tokio::spawn(async move { play::<A>(&url, time_outs().div_ceil(LANES)).await })
        })
        .collect();
    let mut met = Met::default();
    for lane in lanes {
        let lane = lane.await.unwrap();
        met.granted += lane.granted;
        met.timed_out += lane.timed_out;
        met.dropped += lane.dropped;
    }
    let warnings = counted.notices();
    println!("{}: {met:?}, warnings: {}", A::NAME, warnings.len());
    assert!(met.timed_out + met.dropped >= time_outs());
    // Giving back what is not held would write one, here and into the server's log.
    assert!(warnings.is_empty(), "warnings of the server: {warnings:?}");
}

enum Order {
    Take,
    ReleaseAbout(Instant),
    /// How the round ended, if it is to be learned from. The lock is free when this is answered.
    Ended(Option<Ended>),
}

/// Somebody who holds the lock, on a thread of its own, and releases it about when the limit passes.
struct Holder {
    orders: Sender<Order>,
    /// With each answer, how long after the call the release is to come.
    done: Receiver<Duration>,
}

impl Holder {
    fn start(key: LockKey) -> Self {
        let (orders, inbox) = channel();
        let (outbox, done) = channel();
        thread::spawn(move || hold(&key, &inbox, &outbox));
        Self { orders, done }
    }

    /// Returns how long after the call the release is to come.
    fn takes(&self) -> Duration {
        self.orders.send(Order::Take).unwrap();
        self.done.recv().unwrap()
    }

    fn releases_about(&self, moment: Instant) {
        self.orders.send(Order::ReleaseAbout(moment)).unwrap();
    }

    fn has_released(&self, ended: Option<Ended>) {
        self.orders.send(Order::Ended(ended)).unwrap();
        self.done.recv().unwrap();
    }
}

/// Aims better from round to round, at the moment after which four in five waits have timed out.
fn hold(key: &LockKey, orders: &Receiver<Order>, done: &Sender<Duration>) {
    const STEP: Duration = Duration::from_micros(50);
    const JITTER_MICROS: u64 = 200;
    let mut conn = PgConnection::establish(&database_url()).unwrap();
    let mut aim = LIMIT;
    while let Ok(Order::Take) = orders.recv() {
        let guard = conn
            .acquire_advisory_lock(key, LockOptions::no_wait())
            .unwrap();
        done.send(aim).unwrap();
        let Ok(Order::ReleaseAbout(moment)) = orders.recv() else {
            return;
        };
        let jitter = Duration::from_micros(fastrand::u64(..JITTER_MICROS));
        thread::sleep((moment + jitter).saturating_duration_since(Instant::now()));
        guard.release().unwrap();
        let Ok(Order::Ended(ended)) = orders.recv() else {
            return;
        };
        aim = match ended {
            Some(Ended::Granted) => aim + 4 * STEP,
            Some(Ended::TimedOut | Ended::Dropped) => aim.saturating_sub(STEP),
            None => aim,
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
}
