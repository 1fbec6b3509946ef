use std::sync::atomic::{AtomicUsize, Ordering};

use futures_channel::mpsc::{UnboundedSender, unbounded};
use futures_util::StreamExt;

use super::*;

/// How often somebody was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A session that answers what it is asked, with how often it has run, until it is dropped or asked for 0.
struct Stage {
    station: Arc<Station>,
    orders: UnboundedSender<usize>,
    done: Arc<Mutex<Vec<usize>>>,
    owner: Session,
    woken: Arc<Woken>,
}

impl Stage {
    fn new() -> Self {
        let (orders, mut ordered) = unbounded();
        let done = Arc::new(Mutex::new(Vec::new()));
        let answers = Arc::clone(&done);
        let station = Station::new(async move {
            while let Some(order) = ordered.next().await {
                assert_ne!(order, 13, "a session that panics");
                lock(&answers).push(order);
                if order == 0 {
                    break;
                }
            }
            // Held until the session is dropped.
            drop(answers);
        });
        let mut stage = Self {
            owner: Box::pin(Arc::clone(&station).run()),
            station,
            orders,
            done,
            woken: Arc::default(),
        };
        assert!(stage.poll_owner().is_pending());
        stage
    }

    fn poll_owner(&mut self) -> Poll<()> {
        let waker = Waker::from(Arc::clone(&self.woken));
        self.owner.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn done(&self) -> Vec<usize> {
        lock(&self.done).clone()
    }

    fn is_over(&self) -> bool {
        Arc::strong_count(&self.done) == 1
    }
}

#[test]
fn without_a_call_the_owner_runs_the_session() {
    let mut stage = Stage::new();
    stage.orders.unbounded_send(1).unwrap();
    assert_eq!(stage.woken.times(), 1);
    assert!(stage.done().is_empty());
    assert!(stage.poll_owner().is_pending());
    assert_eq!(stage.done(), [1]);
}

#[test]
fn a_call_that_gives_an_order_runs_the_session_and_wakes_nobody() {
    let mut stage = Stage::new();
    let help = stage.station.reserve().unwrap();
    stage.orders.unbounded_send(1).unwrap();
    // The owner is awake for another reason: it leaves the session to the call.
    assert!(stage.poll_owner().is_pending());
    assert!(stage.done().is_empty());
    help.run();
    assert_eq!(stage.done(), [1]);
    assert_eq!(stage.woken.times(), 0);
    // What comes later rings for the owner.
    stage.orders.unbounded_send(2).unwrap();
    assert_eq!(stage.woken.times(), 1);
    assert!(stage.poll_owner().is_pending());
    assert_eq!(stage.done(), [1, 2]);
}

#[test]
fn one_call_at_a_time_runs_it() {
    let stage = Stage::new();
    let help = stage.station.reserve().unwrap();
    assert!(stage.station.reserve().is_none());
    help.run();
    assert!(stage.station.reserve().is_some());
}

#[test]
fn a_promise_that_is_not_kept_wakes_the_owner() {
    let mut stage = Stage::new();
    let help = stage.station.reserve().unwrap();
    stage.orders.unbounded_send(1).unwrap();
    assert_eq!(stage.woken.times(), 0);
    drop(help);
    assert_eq!(stage.woken.times(), 1);
    assert!(stage.poll_owner().is_pending());
    assert_eq!(stage.done(), [1]);
    // One that nobody rang for does not.
    drop(stage.station.reserve());
    assert_eq!(stage.woken.times(), 1);
}

#[test]
fn the_owner_learns_of_an_end_that_a_call_has_seen() {
    let mut stage = Stage::new();
    let help = stage.station.reserve().unwrap();
    stage.orders.unbounded_send(0).unwrap();
    help.run();
    assert!(stage.is_over());
    assert_eq!(stage.woken.times(), 1);
    assert!(stage.poll_owner().is_ready());
}

#[test]
fn the_session_goes_with_its_owner() {
    let Stage {
        station,
        done,
        owner,
        orders,
        ..
    } = Stage::new();
    drop(owner);
    assert_eq!(Arc::strong_count(&done), 1);
    assert!(orders.is_closed());
    // A call that comes too late finds nothing to run.
    station.reserve().unwrap().run();
    assert!(lock(&done).is_empty());
}

#[test]
fn an_owner_that_never_ran_takes_it_too() {
    let (orders, mut ordered) = unbounded::<()>();
    let station = Station::new(async move { while ordered.next().await.is_some() {} });
    drop(Arc::clone(&station).run());
    assert!(orders.is_closed());
}

/// The owner cannot wait for a call that runs the session: that call ends it.
#[test]
fn an_owner_that_goes_while_a_call_runs_the_session() {
    let owner: Arc<Mutex<Option<Session>>> = Arc::default();
    let (gone, held) = (Arc::clone(&owner), Arc::new(()));
    let inside = Arc::clone(&held);
    let station = Station::new(poll_fn(move |_| {
        let _held = &inside;
        drop(lock(&gone).take());
        Poll::Pending
    }));
    *lock(&owner) = Some(Box::pin(Arc::clone(&station).run()));
    station.reserve().unwrap().run();
    assert!(lock(&owner).is_none());
    assert_eq!(Arc::strong_count(&held), 1);
}

/// In the call, which is not to blame; its owner learns that it is over.
#[test]
fn a_session_that_panics_is_over_and_its_call_goes_on() {
    let mut stage = Stage::new();
    let help = stage.station.reserve().unwrap();
    stage.orders.unbounded_send(13).unwrap();
    help.run();
    assert!(stage.is_over());
    assert_eq!(stage.woken.times(), 1);
    assert!(stage.poll_owner().is_ready());
}

/// A client that has done enough for now says so by waking at once; whoever else runs there comes first.
#[test]
fn a_session_that_wakes_itself_is_not_run_again_in_the_same_breath() {
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let station = Station::new(poll_fn(move |context| {
        counted.fetch_add(1, Ordering::Relaxed);
        context.waker().wake_by_ref();
        Poll::Pending
    }));
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(Arc::clone(&woken));
    let mut owner = Box::pin(station.run());
    for polled in 1..4 {
        let polled_once = owner.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled_once.is_pending());
        assert_eq!(polls.load(Ordering::Relaxed), polled);
        assert_eq!(woken.times(), polled);
    }
}
