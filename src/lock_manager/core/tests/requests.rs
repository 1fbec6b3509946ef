//! Requests: order, deadlines, requests that do not wait, polls.

use super::harness::{CoreHarness, NO_COMMANDS, forever, harness, millis, no_wait};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::{LockOptions, WaitStrategy};
use std::time::Duration;

#[test]
fn free_lock_needs_one_acquire_and_one_release() {
    let mut harness = CoreHarness::new(LockManagerOptions::new());
    assert_eq!(harness.request("ann", 1, &no_wait()), ["open s1"]);
    assert_eq!(harness.open("s1"), ["run s1: acquire 1"]);
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    assert_eq!(harness.release("ann"), ["run s1: release 1"]);
    assert_eq!(harness.reply("s1", "y"), ["released ann"]);
    assert_eq!(harness.key_count(), 0, "an unused key is removed");
}

#[test]
fn no_wait_fails_when_contended() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    assert_eq!(harness.reply("s1", "n"), ["failed ann: HeldElsewhere"]);
    harness.request("ben", 1, &LockOptions::wait_up_to(Duration::ZERO));
    assert_eq!(harness.reply("s1", "n"), ["failed ben: TimedOut"]);
    assert_eq!(harness.key_count(), 0);
}

#[test]
fn deadline_passes_without_a_reply() {
    for (limit, time) in [(20, 100), (100, 100), (120, 120)] {
        let mut harness = harness();
        harness.request("ann", 1, &LockOptions::wait_up_to(millis(limit)));
        assert_eq!(harness.next_timer(), Some(millis(limit)));
        assert_eq!(harness.advance(millis(limit - 1)), NO_COMMANDS);
        if limit < time {
            assert_eq!(harness.advance(millis(time - limit)), NO_COMMANDS);
        }
        assert_eq!(harness.advance(millis(1)), ["failed ann: TimedOut"]);
        // The late grant is released.
        assert_eq!(harness.reply("s1", "y"), ["run s1: release 1"]);
        assert_eq!((harness.key_count(), harness.timer_count()), (1, 1));
    }
}

/// The limit bounds the wait for other holders, not the round trip of an attempt.
#[test]
fn free_key_is_granted_after_a_short_limit() {
    let soon = LockOptions::wait_up_to(millis(1));
    for options in [soon, soon.strategy(WaitStrategy::Block)] {
        let mut harness = harness();
        harness.request("ann", 1, &options);
        harness.request("ben", 1, &options);
        harness.request_of_several("cy", 2, &options);
        assert_eq!(harness.advance(millis(2)), NO_COMMANDS);
        let commands = ["granted ann", "failed ben: TimedOut", "run s1: acquire 2"];
        assert_eq!(harness.reply("s1", "y"), commands);
        assert_eq!(harness.reply("s1", "n"), ["failed cy: TimedOut"]);
        // While another caller of the process holds the key, the limit is exact.
        harness.request("dot", 1, &options);
        assert_eq!(harness.advance(millis(1)), ["failed dot: TimedOut"]);
    }
}

#[test]
fn short_limit_does_not_wait_for_a_contended_key() {
    for strategy in [WaitStrategy::Poll, WaitStrategy::Block] {
        let mut harness = harness();
        let soon = LockOptions::wait_up_to(millis(1)).strategy(strategy);
        harness.request("ann", 1, &soon);
        harness.advance(millis(2));
        assert_eq!(harness.reply("s1", "n"), ["failed ann: TimedOut"]);
        assert_eq!((harness.key_count(), harness.timer_count()), (0, 1));
    }
}

#[test]
fn unreachable_deadline_never_passes() {
    let mut harness = harness();
    harness.request("ann", 1, &LockOptions::wait_up_to(Duration::MAX));
    harness.reply("s1", "n");
    assert!(harness.next_timer().is_some_and(|next| next <= millis(100)));
}

#[test]
fn response_removes_the_deadline_timer() {
    let mut harness = harness();
    let before = harness.timer_count();
    let soon = LockOptions::wait_up_to(millis(20));
    harness.request("ann", 1, &soon);
    harness.request("ben", 1, &soon);
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    harness.cancel("ben");
    assert_eq!(harness.timer_count(), before);
}

#[test]
fn waiters_are_granted_in_order() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &forever());
    harness.request("cy", 1, &forever());
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    assert_eq!(harness.drop_guard("ann"), ["granted ben"]);
    assert_eq!(harness.cancel("cy"), NO_COMMANDS);
    assert_eq!(harness.drop_guard("ben"), ["run s1: release 1"]);
}

#[test]
fn no_wait_does_not_overtake() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.reply("s1", "n");
    assert_eq!(
        harness.request("ben", 1, &no_wait()),
        ["failed ben: HeldElsewhere"]
    );
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
    assert_eq!(harness.request("cy", 1, &no_wait()), NO_COMMANDS);
    let answers = harness.reply("s1", "y");
    assert_eq!(answers, ["granted ann", "failed cy: HeldElsewhere"]);
    assert_eq!(
        harness.request("dot", 1, &no_wait()),
        ["failed dot: HeldElsewhere"]
    );
}

#[test]
fn contended_reply_refuses_no_wait_behind_a_waiter() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &no_wait());
    assert_eq!(harness.reply("s1", "n"), ["failed ben: HeldElsewhere"]);
}

/// The holder may have released the lock after the server replied, and may have notified this
/// caller.
#[test]
fn contended_reply_is_only_for_earlier_requests() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    assert_eq!(harness.request("ben", 1, &no_wait()), NO_COMMANDS);
    let answer = harness.reply("s1", "n");
    assert_eq!(answer, ["failed ann: HeldElsewhere", "run s1: acquire 1"]);
    assert_eq!(harness.reply("s1", "y"), ["granted ben"]);
}

#[test]
fn contended_exclusive_does_not_fail_shared() {
    let mut harness = harness();
    harness.request("zoe", 9, &no_wait());
    harness.request("ann", 1, &no_wait());
    harness.request("ben", 1, &no_wait().shared());
    assert_eq!(
        harness.reply("s1", "n"),
        ["failed zoe: HeldElsewhere", "run s1: acquire 1"]
    );
    let answer = harness.reply("s1", "n");
    assert_eq!(
        answer,
        ["failed ann: HeldElsewhere", "run s1: acquire shared 1"]
    );
    assert_eq!(harness.reply("s1", "y"), ["granted ben"]);
}

#[test]
fn later_exclusive_is_tried_after_contended_shared() {
    let mut harness = harness();
    // The cancelled request keeps the session busy, so that `ben` is first.
    harness.request("ann", 1, &forever());
    harness.cancel("ann");
    harness.request("ben", 1, &no_wait().shared());
    let sent = harness.reply("s1", "n");
    assert_eq!(sent, ["run s1: acquire shared 1"]);
    harness.request("cy", 1, &no_wait());
    let sent = harness.reply("s1", "n");
    assert_eq!(sent, ["failed ben: HeldElsewhere", "run s1: acquire 1"]);
    assert_eq!(harness.reply("s1", "n"), ["failed cy: HeldElsewhere"]);
}

#[test]
fn no_wait_requests_of_one_batch_fail_together() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    for who in ["ben", "cy", "dot"] {
        harness.request(who, 1, &no_wait());
    }
    harness.reply("s1", "n");
    let refused = [
        "failed ben: HeldElsewhere",
        "failed cy: HeldElsewhere",
        "failed dot: HeldElsewhere",
    ];
    assert_eq!(
        harness.reply("s1", "n"),
        refused,
        "one acquire for all three"
    );
}

#[test]
fn lock_is_shared_until_an_exclusive_request_arrives() {
    let mut harness = harness();
    for who in ["ann", "ben"] {
        harness.request(who, 1, &forever().shared());
    }
    assert_eq!(harness.reply("s1", "y"), ["granted ann", "granted ben"]);
    assert_eq!(harness.request("cy", 1, &forever()), NO_COMMANDS);
    assert_eq!(
        harness.request("dot", 1, &forever().shared()),
        NO_COMMANDS,
        "behind cy"
    );
    assert_eq!(harness.drop_guard("ben"), NO_COMMANDS);
    assert_eq!(
        harness.drop_guard("ann"),
        ["run s1: release shared 1, acquire 1"]
    );
    assert_eq!(harness.reply("s1", "yy"), ["granted cy"]);
}

#[test]
fn cancelled_first_waiter_unblocks_sharers() {
    let mut harness = harness();
    harness.request("ann", 1, &forever().shared());
    harness.reply("s1", "y");
    harness.request("ben", 1, &forever());
    harness.request("cy", 1, &forever().shared());
    assert_eq!(harness.cancel("ben"), ["granted cy"]);
}

#[test]
fn cancelled_later_waiter_changes_nothing() {
    let mut harness = harness();
    harness.request("ann", 1, &forever().shared());
    harness.reply("s1", "y");
    harness.request("ben", 1, &forever());
    harness.request("cy", 1, &forever().shared());
    harness.request("dot", 1, &forever().shared());
    assert_eq!(harness.cancel("cy"), NO_COMMANDS);
    assert_eq!(harness.cancel("cy"), NO_COMMANDS, "second cancel");
    assert_eq!(harness.cancel("ben"), ["granted dot"]);
}

#[test]
fn grant_in_an_outdated_mode_is_changed() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &forever().shared());
    harness.cancel("ann");
    assert_eq!(
        harness.reply("s1", "y"),
        ["run s1: release 1, acquire shared 1"]
    );
    assert_eq!(harness.reply("s1", "yy"), ["granted ben"]);
}

/// Neither a session nor a caller of this process holds the lock.
#[test]
fn no_wait_is_not_refused_by_a_grant_in_an_outdated_mode() {
    let shared = no_wait().shared();
    for (first, second, changed) in [
        (forever(), shared, "run s1: release 1, acquire shared 1"),
        (
            forever().shared(),
            no_wait(),
            "run s1: release shared 1, acquire 1",
        ),
    ] {
        let mut harness = harness();
        harness.request("ann", 1, &first);
        harness.request("ben", 1, &second);
        harness.cancel("ann");
        assert_eq!(harness.reply("s1", "y"), [changed]);
        assert_eq!(harness.reply("s1", "yy"), ["granted ben"]);
        // Another process may be faster.
        let mut harness = self::harness();
        harness.request("ann", 1, &first);
        harness.request("ben", 1, &second);
        harness.cancel("ann");
        harness.reply("s1", "y");
        assert_eq!(harness.reply("s1", "yn"), ["failed ben: HeldElsewhere"]);
    }
}

#[test]
fn requests_during_a_batch_join_the_next() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    harness.request("ben", 2, &no_wait());
    harness.request("cy", 3, &no_wait());
    let answer = harness.reply("s1", "y");
    assert_eq!(answer, ["granted ann", "run s1: acquire 2, acquire 3"]);
}

#[test]
fn batch_length_is_limited() {
    let mut options = LockManagerOptions::new();
    options.max_batch_len = 2;
    let mut harness = CoreHarness::opened(options);
    for (who, key) in [("ann", 1), ("ben", 2), ("cy", 3), ("dot", 4)] {
        harness.request(who, key, &no_wait());
    }
    assert_eq!(
        harness.reply("s1", "y"),
        ["granted ann", "run s1: acquire 2, acquire 3"]
    );
    let answer = harness.reply("s1", "yy");
    assert_eq!(answer, ["granted ben", "granted cy", "run s1: acquire 4"]);
}

#[test]
fn poll_pauses_grow_up_to_the_interval() {
    let interval = millis(160);
    let mut harness = CoreHarness::opened(LockManagerOptions::new().keep_alive(Duration::MAX));
    harness.request("ann", 1, &forever().interval(interval));
    harness.reply("s1", "n");
    let mut pauses = Vec::new();
    for _ in 0..200 {
        let pause = harness.next_timer().expect("it asks again");
        assert!(pause > Duration::ZERO && pause <= interval, "{pause:?}");
        pauses.push(pause);
        assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
        // The reply arrives at an unaligned time.
        harness.advance(millis(3));
        harness.reply("s1", "n");
    }
    assert!(pauses[0] <= interval / 8, "{pauses:?}");
    // The upper half of the range, minus the sixteenth that the alignment may subtract.
    let grown = interval / 2 - interval / 16;
    assert!(
        pauses[8..].iter().all(|pause| *pause >= grown),
        "{pauses:?}"
    );
    assert!(pauses[8..].iter().any(|pause| *pause > interval * 7 / 8));
}

#[test]
fn keys_with_one_interval_are_polled_together() {
    let mut harness = harness();
    let names: Vec<&'static str> = (0..200).map(|at| &*format!("{at}").leak()).collect();
    harness.request("zoe", 0, &no_wait());
    for (key, who) in (1..).zip(&names) {
        harness.request(who, key, &forever());
    }
    harness.reply("s1", "n");
    let (mut batches, mut polls, start) = (1, 0, harness.now);
    harness.reply("s1", &"n".repeat(200));
    while harness.now < start + Duration::from_secs(4) {
        let sent = harness.advance_to_next_timer();
        // Pings count as well.
        batches += sent.len();
        let ops: usize = sent
            .iter()
            .map(|text| text.matches("acquire").count())
            .sum();
        polls += ops;
        if !sent.is_empty() {
            harness.reply("s1", &"n".repeat(ops));
        }
    }
    assert!(polls >= 8_000, "each key about ten times a second: {polls}");
    // Sixteen aligned times in each 100 ms, and at most one batch for each.
    assert!(batches <= 640 + 1, "{batches}");
}

#[test]
fn new_first_waiter_uses_its_own_interval() {
    let hour = Duration::from_secs(3_600);
    let mut harness = harness();
    harness.request("ann", 1, &forever().interval(hour));
    harness.request("ben", 1, &forever().interval(millis(16)));
    harness.reply("s1", "n");
    harness.cancel("ann");
    assert!(
        harness.next_timer().is_some_and(|next| next <= millis(2)),
        "{:?}",
        harness.next_timer()
    );
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
    harness.reply("s1", "n");
    assert!(
        harness.next_timer().is_some_and(|next| next <= millis(16)),
        "{:?}",
        harness.next_timer()
    );
}

/// The first waiter may leave while its poll is in flight.
#[test]
fn new_first_waiter_does_not_inherit_the_backoff() {
    let mut harness = harness();
    let seconds = Duration::from_secs(10);
    harness.request("ann", 1, &forever().interval(seconds));
    harness.request("ben", 1, &forever().interval(millis(16)));
    harness.reply("s1", "n");
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
    harness.cancel("ann");
    harness.reply("s1", "n");
    let next = harness.next_timer();
    assert!(next <= Some(millis(16)), "{next:?}");
}

#[test]
fn cancellation_does_not_postpone_the_poll() {
    let hour = Duration::from_secs(3_600);
    let mut harness = harness();
    harness.request("ann", 1, &forever().interval(millis(16)));
    harness.request("ben", 1, &forever().interval(hour));
    harness.reply("s1", "n");
    let due = harness.next_timer();
    harness.cancel("ann");
    assert_eq!(harness.next_timer(), due);
}

#[test]
fn no_poll_without_waiters() {
    let mut harness = harness();
    let before = harness.timer_count();
    harness.request("ann", 1, &forever());
    harness.reply("s1", "n");
    assert_eq!(harness.timer_count(), before + 1);
    harness.cancel("ann");
    assert_eq!((harness.timer_count(), harness.key_count()), (before, 0));
}

#[test]
fn grant_without_waiters_is_released() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.cancel("ann");
    assert_eq!(harness.key_count(), 1, "the reply is outstanding");
    assert_eq!(harness.reply("s1", "y"), ["run s1: release 1"]);
    assert_eq!(harness.reply("s1", "y"), NO_COMMANDS);
    assert_eq!(harness.key_count(), 0);
}

#[test]
fn request_during_release_is_sent_afterwards() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "y");
    harness.release("ann");
    assert_eq!(harness.request("ben", 1, &no_wait()), NO_COMMANDS);
    assert_eq!(
        harness.reply("s1", "y"),
        ["released ann", "run s1: acquire 1"]
    );
}

/// The lock may be free for the weaker mode.
#[test]
fn exclusive_contention_does_not_answer_a_shared_request() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "y");
    harness.release("ann");
    harness.request("ben", 1, &no_wait());
    harness.request("cy", 1, &no_wait().shared());
    harness.request("dot", 1, &no_wait());
    harness.reply("s1", "y");
    assert_eq!(
        harness.reply("s1", "n"),
        ["failed ben: HeldElsewhere", "run s1: acquire shared 1"]
    );
    assert_eq!(
        harness.reply("s1", "y"),
        ["granted cy", "failed dot: HeldElsewhere"]
    );
}

#[test]
fn pauses_are_short_again_after_a_grant() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &forever().shared());
    for _ in 0..8 {
        harness.reply("s1", "n");
        harness.advance_to_next_timer();
    }
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    let commands = ["run s1: release 1, acquire shared 1"];
    assert_eq!(harness.drop_guard("ann"), commands);
    harness.reply("s1", "yn");
    // A sixteenth of the interval, and its alignment.
    let pause = harness.next_timer().expect("ben polls");
    assert!(pause <= millis(20), "{pause:?}");
}

#[test]
fn poll_interval_is_at_most_a_day() {
    let day = Duration::from_secs(24 * 60 * 60);
    let mut harness = CoreHarness::opened(LockManagerOptions::new().keep_alive(Duration::MAX));
    harness.request("ann", 1, &forever().interval(Duration::MAX));
    for _ in 0..6 {
        harness.reply("s1", "n");
        assert!(harness.next_timer().is_some_and(|pause| pause <= day));
        harness.advance_to_next_timer();
    }
    harness.reply("s1", "n");
    assert!(
        harness
            .next_timer()
            .is_some_and(|pause| pause >= day * 7 / 16)
    );
}
