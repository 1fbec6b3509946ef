//! Sessions: health checks, loss, failure to open, selection.

use super::harness::{CoreHarness, LockErrorKind, NO_COMMANDS, forever, harness, millis, no_wait};
use crate::error::LockError;
use crate::key::LockKey;
use crate::lock_manager::core::RequestKind;
use crate::lock_manager::options::LockManagerOptions;
use crate::options::{LockOptions, WaitStrategy};
use crate::session::{BatchReply, ServerSigns};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const KEEP_ALIVE: Duration = Duration::from_secs(5);

#[test]
fn idle_session_is_pinged_at_each_keep_alive() {
    let mut harness = harness();
    assert_eq!(harness.next_timer(), Some(KEEP_ALIVE));
    for _ in 0..3 {
        assert_eq!(harness.advance(KEEP_ALIVE), ["run s1: ping"]);
        assert_eq!(harness.advance(millis(1)), NO_COMMANDS);
        assert_eq!(harness.reply("s1", ""), NO_COMMANDS);
        assert_eq!(
            harness.advance_to_next_timer(),
            NO_COMMANDS,
            "time at which the ping would have been overdue"
        );
        assert_eq!(harness.next_timer(), Some(millis(1)));
        assert_eq!(harness.advance(millis(1)), ["run s1: ping"]);
        harness.reply("s1", "");
    }
}

#[test]
fn any_reply_resets_the_keep_alive() {
    let mut harness = harness();
    harness.advance(millis(4_900));
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "n");
    assert_eq!(harness.advance(millis(100)), NO_COMMANDS);
    assert_eq!(harness.next_timer(), Some(millis(4_900)));
    assert_eq!(harness.advance_to_next_timer(), ["run s1: ping"]);
}

/// For each time of the last reply between two health checks.
#[test]
fn silent_session_is_lost_within_two_keep_alives() {
    for busy in (0..5_000).step_by(100) {
        let mut harness = harness();
        harness.advance(millis(busy));
        harness.request("ann", 1, &no_wait());
        harness.reply("s1", "y");
        let silent = harness.now;
        loop {
            let commands = harness.advance_to_next_timer();
            if commands.iter().any(|command| command == "lost s1") {
                break;
            }
        }
        let after = harness.now - silent;
        assert_eq!(after, 2 * KEEP_ALIVE, "a reply after {busy} ms");
    }
}

#[test]
fn batch_without_reply_loses_the_session() {
    let mut harness = harness();
    harness.advance(millis(3_000));
    harness.request("ann", 1, &forever());
    assert_eq!(harness.advance(millis(4_999)), NO_COMMANDS);
    assert_eq!(harness.advance(millis(1)), ["lost s1", "terminate s1"]);
    assert_eq!(harness.advance_to_next_timer(), ["open s2"], "ann waits on");
}

#[test]
fn compensation_without_reply_loses_the_session() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    harness.fail_batch("s1");
    let lost = ["lost s1", "terminate s1", "failed ann: Database"];
    assert_eq!(harness.advance(KEEP_ALIVE), lost);
}

#[test]
fn session_has_one_health_check_until_its_end() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    for _ in 0..20 {
        harness.advance(KEEP_ALIVE);
        harness.reply("s1", "");
        assert_eq!(harness.timer_count(), 1);
    }
    harness.advance(KEEP_ALIVE);
    harness.disconnect("s1");
    assert_eq!(harness.timer_count(), 0);
}

#[test]
fn lost_session_loses_only_its_own_locks() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().max_sessions(2));
    harness.request("ann", 1, &no_wait());
    assert_eq!(harness.request("ben", 2, &no_wait()), ["open s2"]);
    assert_eq!(
        harness.reply("s1", "y"),
        ["granted ann", "run s1: acquire 2"]
    );
    harness.open("s2");
    assert_eq!(harness.request("cy", 3, &no_wait()), ["run s2: acquire 3"]);
    assert_eq!(harness.reply("s2", "y"), ["granted cy"]);
    let lost = ["lost s1", "terminate s1", "run s2: acquire 2"];
    assert_eq!(harness.disconnect("s1"), lost);
    harness.reply("s2", "n");
    assert_eq!(harness.release("ann"), ["released ann: Lost"]);
    assert_eq!(harness.release("cy"), ["run s2: release 3"]);
}

#[test]
fn lost_locks_are_not_reacquired() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &forever());
    harness.reply("s1", "y");
    harness.advance(KEEP_ALIVE);
    assert_eq!(harness.disconnect("s1"), ["lost s1", "terminate s1"]);
    assert_eq!(harness.advance_to_next_timer(), ["open s2"]);
    assert_eq!(harness.open("s2"), ["run s2: acquire 1"]);
    assert_eq!(harness.reply("s2", "y"), ["granted ben"]);
}

#[test]
fn unacked_releases_fail_with_the_session() {
    let mut harness = harness();
    for (who, key) in [("ann", 1), ("ben", 1), ("cy", 2), ("dot", 1)] {
        harness.request(who, key, &forever().shared());
        if key == 2 || who == "ann" {
            harness.reply("s1", "y");
        }
    }
    // In a batch in flight, for the next batch, and in a release.
    assert_eq!(harness.release("ann"), ["run s1: ping"]);
    assert_eq!(harness.release("ben"), NO_COMMANDS);
    assert_eq!(harness.release("cy"), NO_COMMANDS);
    let mut commands = harness.disconnect("s1");
    commands.sort();
    let lost = [
        "lost s1",
        "released ann: Lost",
        "released ben: Lost",
        "released cy: Lost",
        "terminate s1",
    ];
    assert_eq!(commands, lost);
}

#[test]
fn session_lost_while_issuing_a_token_loses_sharers() {
    let mut harness = harness();
    harness.request("ann", 1, &forever().shared());
    harness.reply("s1", "y");
    assert_eq!(
        harness.request_with_token("ben", 1, &forever().shared()),
        ["run s1: issue token shared 1"]
    );
    assert_eq!(
        harness.request("cy", 1, &no_wait().shared()),
        NO_COMMANDS,
        "the token decides"
    );
    // `cy` may have found an idle session that had ended, so it tries once more.
    let lost = ["lost s1", "terminate s1", "open s2"];
    assert_eq!(harness.disconnect("s1"), lost);
    assert_eq!(harness.release("ann"), ["released ann: Lost"]);
    let sent = harness.open("s2");
    assert_eq!(sent, ["run s2: acquire with token shared 1"]);
    let granted = ["granted ben with 1", "granted cy"];
    assert_eq!(harness.reply("s2", "y"), granted);
}

#[test]
fn session_lost_while_releasing_is_replaced_later() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &forever().shared());
    harness.reply("s1", "y");
    assert_eq!(
        harness.release("ann"),
        ["run s1: release 1, acquire shared 1"]
    );
    let lost = ["lost s1", "terminate s1", "released ann: Lost"];
    assert_eq!(harness.disconnect("s1"), lost);
    assert!(
        harness
            .next_timer()
            .is_some_and(|pause| pause > Duration::ZERO)
    );
    assert_eq!(harness.advance_to_next_timer(), ["open s2"]);
}

#[test]
fn events_of_an_ended_session_are_ignored() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.advance(KEEP_ALIVE);
    assert_eq!(harness.reply("s1", "y"), NO_COMMANDS);
    assert_eq!(harness.open("s1"), NO_COMMANDS);
    assert_eq!(harness.grant_wait("s1"), NO_COMMANDS);
    assert_eq!(harness.end_session("s1"), NO_COMMANDS);
}

#[test]
fn unexpected_reply_loses_the_session() {
    let lost = ["lost s1", "terminate s1"];
    let mut harness = harness();
    harness.advance(KEEP_ALIVE);
    harness.reply("s1", "");
    assert_eq!(harness.reply("s1", ""), lost);
    let mut harness = self::harness();
    assert_eq!(harness.open("s1"), lost);
    let mut harness = self::harness();
    assert_eq!(harness.grant_wait("s1"), lost);
}

#[test]
fn reply_of_another_session_fails_all_waiters() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &no_wait());
    let commands = [
        "lost s1",
        "terminate s1",
        "failed ann: SessionChanged",
        "failed ben: SessionChanged",
    ];
    assert_eq!(harness.reply_from_pid("s1", "y", 1), commands);
    assert_eq!((harness.key_count(), harness.timer_count()), (0, 0));
}

#[test]
fn incomplete_reply_fails_as_session_changed() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    let reply = BatchReply {
        answers: None,
        token: None,
        pid: harness.pid("s1"),
        server_signs: ServerSigns::NONE,
    };
    let commands = ["lost s1", "terminate s1", "failed ann: SessionChanged"];
    assert_eq!(harness.reply_with("s1", Ok(reply)), commands);
}

#[test]
fn first_open_failure_fails_all_requests() {
    let mut harness = CoreHarness::new(LockManagerOptions::new());
    harness.request("ann", 1, &forever());
    harness.request("ben", 2, &no_wait());
    let mut commands = harness.fail_open("s1");
    commands.sort();
    assert_eq!(commands, ["failed ann: Pool", "failed ben: Pool"]);
    assert_eq!((harness.key_count(), harness.timer_count()), (0, 0));
}

#[test]
fn open_is_retried_after_a_former_session() {
    let mut harness = harness();
    harness.request("ann", 1, &LockOptions::wait_up_to(millis(2_000)));
    harness.disconnect("s1");
    assert_eq!(harness.advance_to_next_timer(), ["open s2"]);
    assert_eq!(harness.request("ben", 1, &no_wait()), NO_COMMANDS);
    assert_eq!(harness.fail_open("s2"), ["failed ben: Pool"]);
    let mut pauses = Vec::new();
    for session in ["s3", "s4", "s5", "s6", "s7"] {
        pauses.push(harness.next_timer().expect("ann waits"));
        assert_eq!(harness.advance_to_next_timer(), [format!("open {session}")]);
        harness.fail_open(session);
    }
    assert!(pauses.iter().all(|pause| *pause > millis(25)), "{pauses:?}");
    assert!(pauses[4] >= millis(450), "they grow: {pauses:?}");
    // The reason is more useful than the timeout.
    let rest = harness.advance(millis(2_000));
    assert!(rest.contains(&"failed ann: Pool".to_owned()), "{rest:?}");
}

/// Otherwise each waiting key would open a session of its own, also on a server that starts.
#[test]
fn keys_that_failed_apart_share_the_next_attempt() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.disconnect("s1");
    assert_eq!(harness.advance_to_next_timer(), ["open s2"]);
    assert_eq!(harness.fail_open("s2"), NO_COMMANDS);
    harness.advance(millis(1));
    // A request for another key tries at once.
    assert_eq!(harness.request("ben", 2, &forever()), ["open s3"]);
    assert_eq!(harness.fail_open("s3"), NO_COMMANDS);
    let polled = harness.advance_to_next_timer();
    assert_eq!(polled, NO_COMMANDS, "the poll of ann moves to that of ben");
    assert_eq!(harness.advance_to_next_timer(), ["open s4"]);
    assert_eq!(harness.open("s4"), ["run s4: acquire 1, acquire 2"]);
}

#[test]
fn reopened_session_resets_the_backoff() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.disconnect("s1");
    for session in ["s2", "s3", "s4", "s5", "s6"] {
        harness.advance_to_next_timer();
        harness.fail_open(session);
    }
    harness.advance_to_next_timer();
    harness.open("s7");
    harness.disconnect("s7");
    harness.advance_to_next_timer();
    harness.fail_open("s8");
    assert!(
        harness
            .next_timer()
            .is_some_and(|pause| pause <= millis(63))
    );
}

/// The pool may take its time, but the network of its connection is silent.
#[test]
fn session_without_a_first_reply_is_replaced() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.disconnect("s1");
    assert_eq!(harness.advance_to_next_timer(), ["open s2"]);
    harness.request("ben", 2, &no_wait());
    assert_eq!(harness.advance(2 * KEEP_ALIVE), NO_COMMANDS, "the checkout");
    assert_eq!(harness.check_out("s2"), NO_COMMANDS);
    assert_eq!(harness.advance(KEEP_ALIVE - millis(1)), NO_COMMANDS);
    let replaced = ["terminate s2", "failed ben: Pool"];
    assert_eq!(harness.advance(millis(1)), replaced);
    assert_eq!(harness.advance_to_next_timer(), ["open s3"]);
    harness.check_out("s3");
    assert_eq!(harness.fail_open("s3"), NO_COMMANDS);
    assert_eq!(harness.timer_count(), 1, "the poll of ann");
}

/// A second session increases throughput. A pool without a free connection leaves the first one as
/// it is.
#[test]
fn extra_session_is_not_awaited() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().max_sessions(3));
    harness.request("ann", 1, &no_wait());
    assert_eq!(harness.request("ben", 2, &no_wait()), ["open s2"]);
    assert_eq!(
        harness.request("cy", 3, &no_wait()),
        NO_COMMANDS,
        "one at a time"
    );
    let answer = harness.reply("s1", "y");
    assert_eq!(answer, ["granted ann", "run s1: acquire 2, acquire 3"]);
    assert_eq!(harness.fail_open("s2"), NO_COMMANDS);
    assert_eq!(
        harness.request("dot", 4, &no_wait()),
        NO_COMMANDS,
        "no immediate retry"
    );
    harness.advance(millis(1_000));
    assert_eq!(harness.request("eve", 5, &no_wait()), ["open s3"]);
}

#[test]
fn extra_open_failure_is_not_the_timeout_cause() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().max_sessions(2));
    harness.request("ann", 1, &no_wait());
    harness.request("ben", 2, &LockOptions::wait_up_to(millis(50)));
    harness.reply("s1", "n");
    harness.fail_open("s2");
    harness.reply("s1", "n");
    let mut commands = Vec::new();
    while harness
        .next_timer()
        .is_some_and(|next| next < millis(1_000))
        && commands.is_empty()
    {
        commands = harness.advance_to_next_timer();
        if commands == ["run s1: acquire 2"] {
            harness.reply("s1", "n");
            commands.clear();
        }
    }
    assert_eq!(commands, ["failed ben: TimedOut"]);
}

#[test]
fn idle_session_is_selected() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().max_sessions(2));
    harness.request("ann", 1, &no_wait());
    harness.request("ben", 2, &no_wait());
    harness.open("s2");
    assert_eq!(harness.request("cy", 3, &no_wait()), ["run s2: acquire 3"]);
    // Both sessions are busy, and the outbox of s1 is longer.
    assert_eq!(harness.request("dot", 4, &no_wait()), NO_COMMANDS);
    assert_eq!(
        harness.reply("s2", "y"),
        ["granted cy", "run s2: acquire 4"]
    );
}

#[test]
fn session_limit_is_respected() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &no_wait());
    assert_eq!(harness.request("ben", 2, &no_wait()), NO_COMMANDS);
    assert_eq!(harness.request("cy", 3, &no_wait()), NO_COMMANDS);
}

#[test]
fn unreachable_keep_alive_has_no_timer() {
    let harness = CoreHarness::opened(LockManagerOptions::new().keep_alive(Duration::MAX));
    assert_eq!(harness.timer_count(), 0);
}

#[test]
fn generation_differs_per_session() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.reply("s1", "y");
    let first = harness.generation("s1");
    harness.disconnect("s1");
    harness.request("ben", 1, &forever());
    assert!(first < harness.generation("s2"));
}

/// The session ended while it was idle, and the request only found that out.
#[test]
fn no_wait_is_retried_once_after_the_end_of_the_session() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    let commands = ["lost s1", "terminate s1", "open s2"];
    assert_eq!(harness.disconnect("s1"), commands);
    assert_eq!(harness.open("s2"), ["run s2: acquire 1"]);
    let lost = ["lost s2", "terminate s2", "failed ann: Database"];
    assert_eq!(harness.disconnect("s2"), lost);
    assert_eq!(harness.key_count(), 0);

    harness.request("ben", 1, &no_wait());
    harness.open("s3");
    harness.disconnect("s3");
    harness.open("s4");
    assert_eq!(harness.reply("s4", "y"), ["granted ben"]);
}

/// A restart of the server ends all sessions.
#[test]
fn no_wait_outlives_all_sessions_that_were_idle() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().max_sessions(2));
    harness.request("ann", 1, &no_wait());
    assert_eq!(harness.request("ben", 2, &no_wait()), ["open s2"]);
    harness.reply("s1", "n");
    harness.reply("s1", "n");
    harness.open("s2");
    assert_eq!(harness.request("cy", 3, &no_wait()), ["run s1: acquire 3"]);
    let lost = ["lost s1", "terminate s1", "run s2: acquire 3"];
    assert_eq!(harness.disconnect("s1"), lost);
    let lost = ["lost s2", "terminate s2", "open s3"];
    assert_eq!(harness.disconnect("s2"), lost);
    assert_eq!(harness.open("s3"), ["run s3: acquire 3"]);
    // It was opened for this request.
    let lost = ["lost s3", "terminate s3", "failed cy: Database"];
    assert_eq!(harness.disconnect("s3"), lost);
}

#[test]
fn no_wait_is_not_retried_after_a_silence() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    let lost = ["lost s1", "terminate s1", "failed ann: Database"];
    assert_eq!(harness.advance(KEEP_ALIVE), lost);
}

/// A call for several keys with a limit goes on as a call for one key does.
#[test]
fn requests_of_several_keys_outlive_sessions_until_the_limit() {
    let mut harness = harness();
    let limit = LockOptions::wait_up_to(millis(2_000));
    harness.request_of_several("ann", 1, &limit);
    harness.disconnect("s1");
    assert_eq!(harness.advance_to_next_timer(), ["open s2"]);
    assert_eq!(harness.fail_open("s2"), NO_COMMANDS);
    assert_eq!(harness.advance_to_next_timer(), ["open s3"]);
    assert_eq!(harness.open("s3"), ["run s3: acquire 1"]);
    // Contention is the caller's business.
    assert_eq!(harness.reply("s3", "n"), ["failed ann: HeldElsewhere"]);

    harness.request_of_several("ben", 1, &limit);
    harness.disconnect("s3");
    let mut commands = Vec::new();
    while commands.is_empty() {
        commands = harness.advance_to_next_timer();
        if let [opened] = &commands[..] {
            if let Some(session) = opened.strip_prefix("open ") {
                let session = session.to_owned();
                harness.fail_open(&session);
                commands.clear();
            }
        }
    }
    assert_eq!(commands, ["failed ben: Pool"]);
}

/// An outage is not contention.
#[test]
fn deadline_without_a_session_fails_as_pool() {
    let soon = LockOptions::wait_up_to(millis(20));
    let mut harness = CoreHarness::new(LockManagerOptions::new());
    harness.request("ann", 1, &soon);
    harness.request_of_several("ben", 2, &soon);
    // As a pool's checkout, which has this time in any case.
    assert_eq!(harness.advance(millis(20)), NO_COMMANDS);
    let mut commands = harness.advance(millis(80));
    commands.sort();
    assert_eq!(commands, ["failed ann: Pool", "failed ben: Pool"]);
    harness.open("s1");
    harness.reply("s1", "nn");
    harness.request("cy", 3, &soon);
    assert_eq!(harness.advance(millis(20)), NO_COMMANDS);
    assert_eq!(harness.advance(millis(80)), ["failed cy: TimedOut"]);
}

/// The earlier waiter waits for a session, too.
#[test]
fn no_wait_behind_a_waiter_fails_as_pool_in_an_outage() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.disconnect("s1");
    assert_eq!(harness.advance_to_next_timer(), ["open s2"]);
    assert_eq!(harness.fail_open("s2"), NO_COMMANDS);
    for options in [no_wait(), LockOptions::wait_up_to(Duration::ZERO)] {
        let opened = harness.request("ben", 1, &options);
        let session = opened[0].strip_prefix("open ").expect("one checkout");
        assert_eq!(harness.fail_open(session), ["failed ben: Pool"]);
    }
    // A further waiter is not contended either, and the first one is served.
    let key = LockKey::from(1);
    let (core, now) = (&mut harness.core, harness.now);
    core.request(key, &forever(), RequestKind::Plain, "cy", now);
    let commands = core.take_commands(Vec::new(), now);
    assert!(commands.is_empty(), "{commands:?}");
    let opened = harness.advance_to_next_timer();
    let session = opened[0].strip_prefix("open ").expect("a poll");
    assert_eq!(harness.open(session), [format!("run {session}: acquire 1")]);
    assert_eq!(harness.reply(session, "y"), ["granted ann"]);
}

/// The server was asked by the session that waits for the key or holds it.
#[test]
fn deadline_on_a_dedicated_session_is_a_time_out() {
    let soon = LockOptions::wait_up_to(millis(20)).strategy(WaitStrategy::Block);
    let mut harness = harness();
    harness.request("ann", 1, &soon);
    harness.reply("s1", "n");
    assert_eq!(harness.open("s2"), ["wait s2: 1 20ms"]);
    harness.find_closed("s1");
    assert_eq!(harness.advance(millis(20)), ["failed ann: TimedOut"]);

    let mut harness = self::harness();
    harness.request("ann", 1, &forever().strategy(WaitStrategy::Block));
    harness.reply("s1", "n");
    harness.open("s2");
    assert_eq!(harness.grant_wait("s2"), ["granted ann"]);
    harness.find_closed("s1");
    harness.request("ben", 1, &soon);
    assert_eq!(harness.advance(millis(20)), ["failed ben: TimedOut"]);
}

/// Error of a pool whose text cannot be read.
#[derive(Debug)]
struct PanicsInDisplay;

impl std::fmt::Display for PanicsInDisplay {
    fn fmt(&self, _formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("the error panics")
    }
}

impl std::error::Error for PanicsInDisplay {}

/// The panic ends the task of the session, which reports its end.
#[test]
fn error_that_panics_leaves_no_request_unanswered() {
    let mut harness = CoreHarness::new(LockManagerOptions::new());
    harness.request("ann", 1, &forever());
    let error = LockError::new(LockErrorKind::Pool).with_source(PanicsInDisplay);
    let failed = catch_unwind(AssertUnwindSafe(|| harness.fail_open_with("s1", error)));
    assert!(failed.is_err());
    assert_eq!(harness.end_session("s1"), ["failed ann: Pool"]);
}
