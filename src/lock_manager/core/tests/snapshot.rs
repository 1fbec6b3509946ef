//! Snapshots: keys, holders, waiters, sessions, counters.

use super::harness::{CoreHarness, forever, millis};
use crate::key::LockKey;
use crate::lock_manager::options::LockManagerOptions;
use crate::lock_manager::snapshot::{
    KeySnapshot, LockManagerSnapshot, ManagedSession, ManagedSessionState,
};
use crate::options::{LockMode, WaitStrategy};
use crate::session::Backend;

fn snapshot(harness: &CoreHarness) -> LockManagerSnapshot {
    harness.core.snapshot(harness.now)
}

#[test]
fn snapshot_shows_holder_and_waiters() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &forever());
    harness.reply("s1", "y");
    harness.advance(millis(20));
    harness.request("ben", 1, &forever());
    harness.advance(millis(10));
    harness.request("cat", 1, &forever());
    let expected = LockManagerSnapshot {
        keys: vec![KeySnapshot {
            key: LockKey::from(1),
            mode: Some(LockMode::Exclusive),
            holders: 1,
            waiters: 2,
            held_for: Some(millis(30)),
            longest_wait: Some(millis(10)),
            generation: Some(harness.generation("s1")),
        }],
        sessions: vec![ManagedSession {
            generation: harness.generation("s1"),
            pid: Some(harness.pid("s1")),
            state: ManagedSessionState::Idle,
            dedicated_to: None,
            keys: 1,
            outbox: 0,
        }],
        is_closed: false,
        // The first one opened the session.
        batches: 2,
        hand_offs: 0,
        lost_sessions: 0,
    };
    assert_eq!(snapshot(&harness), expected);
    // The hand-off restarts the time of the holder.
    harness.release("ann");
    harness.advance(millis(5));
    let handed_off = snapshot(&harness);
    assert_eq!(handed_off.hand_offs, 1);
    assert_eq!((handed_off.holders(), handed_off.waiters()), (1, 1));
    assert_eq!(handed_off.keys[0].held_for, Some(millis(5)));
}

#[test]
fn snapshot_shows_the_phase_of_each_session() {
    let mut harness = CoreHarness::new(LockManagerOptions::new());
    let state = |harness: &CoreHarness| {
        let sessions = snapshot(harness).sessions;
        sessions
            .iter()
            .map(|session| session.state)
            .collect::<Vec<_>>()
    };
    harness.request("ann", 1, &forever().strategy(WaitStrategy::Block));
    assert_eq!(state(&harness), [ManagedSessionState::Opening]);
    assert_eq!(snapshot(&harness).sessions[0].pid, None);
    harness.open("s1");
    assert_eq!(state(&harness), [ManagedSessionState::Executing]);
    harness.reply("s1", "n");
    harness.open("s2");
    harness.advance_to_next_timer();
    let sessions = snapshot(&harness).sessions;
    let dedicated = sessions
        .iter()
        .find(|session| session.dedicated_to.is_some());
    let dedicated = dedicated.expect("a dedicated session");
    assert_eq!(dedicated.state, ManagedSessionState::WaitingOnServer);
    assert_eq!(dedicated.dedicated_to, Some(LockKey::from(1).raw()));
    harness.grant_wait("s2");
    harness.release("ann");
    assert_eq!(
        snapshot(&harness).keys[0].mode,
        None,
        "the release is in flight"
    );
}

#[test]
fn snapshot_counts_losses_and_shows_the_end() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &forever());
    harness.disconnect("s1");
    let lost = snapshot(&harness);
    assert_eq!((lost.lost_sessions, lost.sessions.len()), (1, 0));
    assert_eq!((lost.keys[0].mode, lost.keys[0].waiters), (None, 1));
    harness.core.close("end");
    let closed = snapshot(&harness);
    assert!(closed.is_closed && closed.keys.is_empty());
}

#[test]
fn snapshot_in_the_process_has_generation_0() {
    let options =
        LockManagerOptions::new().on_no_lock_backend(crate::lock_manager::NoLockBackend::InProcess);
    let mut harness = CoreHarness::new(options);
    harness.request("ann", 1, &forever().shared());
    harness.open_to("s1", Backend::Sqlite);
    harness.request("ben", 1, &forever().shared());
    let shared = snapshot(&harness);
    assert_eq!(
        (shared.keys[0].holders, shared.keys[0].generation),
        (2, Some(0))
    );
    assert_eq!(shared.keys[0].mode, Some(LockMode::Shared));
    let text = shared.to_string();
    assert!(
        text.starts_with("1 keys, 2 holders, 0 waiters, 0 sessions\n"),
        "{text}"
    );
}
