use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_channel::mpsc::{UnboundedSender, unbounded};
use futures_util::StreamExt;

use super::*;

/// A waker that counts its wake-ups.
#[derive(Default)]
struct WakeCounter(AtomicUsize);

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl WakeCounter {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A session that records its commands. Command 0 ends it, and 13 lets it panic.
struct Fixture {
    task: Arc<SessionTask>,
    commands: UnboundedSender<usize>,
    done: Arc<Mutex<Vec<usize>>>,
    owner: Session,
    wakes: Arc<WakeCounter>,
}

impl Fixture {
    fn new() -> Self {
        let (commands, mut received) = unbounded();
        let done = Arc::new(Mutex::new(Vec::new()));
        let recorded = Arc::clone(&done);
        let task = SessionTask::new(async move {
            while let Some(command) = received.next().await {
                assert_ne!(command, 13, "a session that panics");
                lock(&recorded).push(command);
                if command == 0 {
                    break;
                }
            }
            // Held until the session is dropped.
            drop(recorded);
        });
        let mut fixture = Self {
            owner: Box::pin(Arc::clone(&task).run()),
            task,
            commands,
            done,
            wakes: Arc::default(),
        };
        assert!(fixture.poll_owner().is_pending());
        fixture
    }

    fn poll_owner(&mut self) -> Poll<()> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.owner.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn done(&self) -> Vec<usize> {
        lock(&self.done).clone()
    }

    fn has_ended(&self) -> bool {
        Arc::strong_count(&self.done) == 1
    }
}

#[test]
fn owner_polls_the_session_without_a_call() {
    let mut fixture = Fixture::new();
    fixture.commands.unbounded_send(1).unwrap();
    assert_eq!(fixture.wakes.count(), 1);
    assert!(fixture.done().is_empty());
    assert!(fixture.poll_owner().is_pending());
    assert_eq!(fixture.done(), [1]);
}

#[test]
fn claiming_call_polls_the_session_without_a_wake_up() {
    let mut fixture = Fixture::new();
    let permit = fixture.task.try_claim().unwrap();
    fixture.commands.unbounded_send(1).unwrap();
    // The owner is polled for another reason: it leaves the session to the call.
    assert!(fixture.poll_owner().is_pending());
    assert!(fixture.done().is_empty());
    permit.poll();
    assert_eq!(fixture.done(), [1]);
    assert_eq!(fixture.wakes.count(), 0);
    // A later command wakes the owner.
    fixture.commands.unbounded_send(2).unwrap();
    assert_eq!(fixture.wakes.count(), 1);
    assert!(fixture.poll_owner().is_pending());
    assert_eq!(fixture.done(), [1, 2]);
}

#[test]
fn session_is_claimed_by_one_call_at_a_time() {
    let fixture = Fixture::new();
    let permit = fixture.task.try_claim().unwrap();
    assert!(fixture.task.try_claim().is_none());
    permit.poll();
    assert!(fixture.task.try_claim().is_some());
}

#[test]
fn dropped_permit_wakes_the_owner_if_notified() {
    let mut fixture = Fixture::new();
    let permit = fixture.task.try_claim().unwrap();
    fixture.commands.unbounded_send(1).unwrap();
    assert_eq!(fixture.wakes.count(), 0);
    drop(permit);
    assert_eq!(fixture.wakes.count(), 1);
    assert!(fixture.poll_owner().is_pending());
    assert_eq!(fixture.done(), [1]);
    // Without a notification the owner is not woken.
    drop(fixture.task.try_claim());
    assert_eq!(fixture.wakes.count(), 1);
}

#[test]
fn owner_learns_of_an_end_during_a_call() {
    let mut fixture = Fixture::new();
    let permit = fixture.task.try_claim().unwrap();
    fixture.commands.unbounded_send(0).unwrap();
    permit.poll();
    assert!(fixture.has_ended());
    assert_eq!(fixture.wakes.count(), 1);
    assert!(fixture.poll_owner().is_ready());
}

#[test]
fn dropped_owner_drops_the_session() {
    let Fixture {
        task,
        done,
        owner,
        commands,
        ..
    } = Fixture::new();
    drop(owner);
    assert_eq!(Arc::strong_count(&done), 1);
    assert!(commands.is_closed());
    // A later call finds no session to poll.
    task.try_claim().unwrap().poll();
    assert!(lock(&done).is_empty());
}

#[test]
fn owner_dropped_before_its_first_poll_drops_the_session() {
    let (commands, mut received) = unbounded::<()>();
    let task = SessionTask::new(async move { while received.next().await.is_some() {} });
    drop(Arc::clone(&task).run());
    assert!(commands.is_closed());
}

/// The owner cannot wait for the call that polls the session, so that call ends the session.
#[test]
fn owner_dropped_during_a_poll_ends_the_session() {
    let owner: Arc<Mutex<Option<Session>>> = Arc::default();
    let (owner_of_session, held) = (Arc::clone(&owner), Arc::new(()));
    let inside = Arc::clone(&held);
    let task = SessionTask::new(poll_fn(move |_| {
        let _held = &inside;
        drop(lock(&owner_of_session).take());
        Poll::Pending
    }));
    *lock(&owner) = Some(Box::pin(Arc::clone(&task).run()));
    task.try_claim().unwrap().poll();
    assert!(lock(&owner).is_none());
    assert_eq!(Arc::strong_count(&held), 1);
}

/// The panic does not reach the call that polls; the owner learns of the end.
#[test]
fn panicking_session_ends_and_its_call_continues() {
    let mut fixture = Fixture::new();
    let permit = fixture.task.try_claim().unwrap();
    fixture.commands.unbounded_send(13).unwrap();
    permit.poll();
    assert!(fixture.has_ended());
    assert_eq!(fixture.wakes.count(), 1);
    assert!(fixture.poll_owner().is_ready());
}

/// A session that wakes itself yields to the other tasks of its executor.
#[test]
fn self_waking_session_is_polled_once_per_owner_poll() {
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let task = SessionTask::new(poll_fn(move |context| {
        counted.fetch_add(1, Ordering::Relaxed);
        context.waker().wake_by_ref();
        Poll::Pending
    }));
    let wakes = Arc::<WakeCounter>::default();
    let waker = Waker::from(Arc::clone(&wakes));
    let mut owner = Box::pin(task.run());
    for polled in 1..4 {
        let polled_once = owner.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled_once.is_pending());
        assert_eq!(polls.load(Ordering::Relaxed), polled);
        assert_eq!(wakes.count(), polled);
    }
}

/// A response wakes a task, which an executor may poll at once: it calls the session again.
#[test]
fn session_is_not_claimed_during_its_own_poll() {
    let slot: Arc<Mutex<Option<Arc<SessionTask>>>> = Arc::default();
    let own = Arc::clone(&slot);
    let task = SessionTask::new(poll_fn(move |_| {
        let task = lock(&own).clone().unwrap();
        assert!(task.try_claim().is_none());
        Poll::Ready(())
    }));
    *lock(&slot) = Some(Arc::clone(&task));
    let mut owner = pin!(task.run());
    assert!(
        owner
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    );
}
