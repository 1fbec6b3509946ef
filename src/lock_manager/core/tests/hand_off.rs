//! Hand-off between waiters, its limit, and the pause for other processes.

use super::harness::{CoreHarness, NO_COMMANDS, millis, no_wait};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::{LockMode, LockOptions, WaitStrategy};
use std::time::Duration;

fn forever() -> LockOptions {
    LockOptions::wait_forever().interval(millis(160))
}

/// The waiter `ann` holds the lock; the limits are `count` hand-offs and 100 ms.
fn held(count: u32) -> CoreHarness {
    let mut harness =
        CoreHarness::opened(LockManagerOptions::new().hand_off_limit(count, millis(100)));
    harness.request("ann", 1, &forever());
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    harness
}

#[test]
fn default_hand_off_limit_is_50_ms() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &forever());
    harness.reply("s1", "y");
    harness.request("ben", 1, &forever());
    harness.advance(millis(49));
    assert_eq!(harness.drop_guard("ann"), ["granted ben"]);
    harness.request("cy", 1, &forever());
    harness.advance(millis(1));
    assert_eq!(harness.drop_guard("ben"), ["run s1: release 1"]);
}

#[test]
fn hand_off_needs_no_round_trip_but_its_ack_does() {
    let mut harness = held(9);
    harness.request("ben", 1, &forever());
    assert_eq!(harness.release("ann"), ["granted ben", "run s1: ping"]);
    assert_eq!(harness.reply("s1", ""), ["released ann"]);
}

#[test]
fn release_is_acked_by_a_batch_sent_after_it() {
    let mut harness = held(9);
    harness.request("ben", 1, &forever());
    harness.request("other", 2, &no_wait());
    assert_eq!(harness.release("ann"), ["granted ben"]);
    assert_eq!(harness.reply("s1", "y"), ["granted other", "run s1: ping"]);
    assert_eq!(harness.reply("s1", ""), ["released ann"]);
}

/// Releases the lock of `ann` at the limit while `ben` waits; returns the length of the pause.
fn pause_after(harness: &mut CoreHarness) -> Duration {
    assert_eq!(harness.drop_guard("ann"), ["run s1: release 1"]);
    let pause = harness.next_timer().expect("ben waits");
    assert_eq!(harness.reply("s1", "y"), NO_COMMANDS);
    assert_eq!(harness.advance_to_next_timer(), ["run s1: acquire 1"]);
    pause
}

#[test]
fn yield_is_short_without_outside_contention() {
    let mut harness = held(1);
    harness.request("ben", 1, &forever());
    let pause = pause_after(&mut harness);
    // The first pause of a polling client, aligned to a sixteenth of the interval.
    assert!(pause >= millis(5) && pause <= millis(20), "{pause:?}");
    assert_eq!(harness.reply("s1", "y"), ["granted ben"]);
}

#[test]
fn yield_is_half_an_interval_after_outside_contention() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &forever());
    assert_eq!(harness.reply("s1", "n"), NO_COMMANDS);
    harness.advance_to_next_timer();
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    let pause = pause_after(&mut harness);
    assert!(pause >= millis(70) && pause <= millis(160), "{pause:?}");
}

#[test]
fn unused_yield_is_halved_next_time() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &forever());
    harness.reply("s1", "n");
    harness.advance_to_next_timer();
    harness.reply("s1", "y");
    pause_after(&mut harness);
    assert_eq!(harness.reply("s1", "y"), ["granted ben"]);
    harness.request("cy", 1, &forever());
    assert_eq!(harness.drop_guard("ben"), ["run s1: release 1"]);
    let pause = harness.next_timer().expect("cy waits");
    assert!(pause >= millis(30) && pause <= millis(90), "{pause:?}");
}

#[test]
fn yields_after_the_hand_off_time() {
    let mut harness = held(9);
    harness.request("ben", 1, &forever());
    harness.advance(millis(99));
    assert_eq!(harness.drop_guard("ann"), ["granted ben"]);
    harness.request("cy", 1, &forever());
    harness.advance(millis(1));
    assert_eq!(harness.drop_guard("ben"), ["run s1: release 1"]);
}

#[test]
fn zero_hand_offs_acquires_from_server_each_time() {
    for count in [0, 1] {
        let mut harness = held(count);
        harness.request("ben", 1, &forever());
        assert_eq!(harness.drop_guard("ann"), ["run s1: release 1"]);
    }
}

#[test]
fn server_queue_needs_no_yield() {
    let mut harness = held(1);
    harness.request("ben", 1, &forever().strategy(WaitStrategy::Block));
    assert_eq!(harness.drop_guard("ann"), ["run s1: release 1, acquire 1"]);
    // Another session was granted the lock.
    let answer = harness.reply("s1", "yn");
    assert_eq!(answer, ["open s2"]);
    assert_eq!(harness.open("s2"), ["wait s2: 1 forever"]);
}

#[test]
fn hand_off_count_restarts_after_a_release() {
    let mut harness = held(2);
    for who in ["ben", "cy", "dot", "eve"] {
        harness.request(who, 1, &forever().strategy(WaitStrategy::Block));
    }
    assert_eq!(harness.drop_guard("ann"), ["granted ben"]);
    assert_eq!(harness.drop_guard("ben"), ["run s1: release 1, acquire 1"]);
    assert_eq!(harness.reply("s1", "yy"), ["granted cy"]);
    assert_eq!(harness.drop_guard("cy"), ["granted dot"]);
    assert_eq!(harness.drop_guard("dot"), ["run s1: release 1, acquire 1"]);
}

/// A reacquire in another mode, in the same batch, gives polling clients no chance.
#[test]
fn mode_change_counts_as_a_hand_off() {
    let mut harness = held(3);
    harness.request("ben", 1, &forever().shared());
    harness.request("cy", 1, &forever());
    harness.request("dot", 1, &forever());
    assert_eq!(
        harness.drop_guard("ann"),
        ["run s1: release 1, acquire shared 1"]
    );
    assert_eq!(harness.reply("s1", "yy"), ["granted ben"]);
    assert_eq!(
        harness.drop_guard("ben"),
        ["run s1: release shared 1, acquire 1"]
    );
    assert_eq!(harness.reply("s1", "yy"), ["granted cy"]);
    assert_eq!(
        harness.drop_guard("cy"),
        ["run s1: release 1"],
        "the third hand-off"
    );
}

#[test]
fn hand_off_time_includes_mode_changes() {
    let mut harness = held(9);
    harness.request("ben", 1, &forever().shared());
    harness.request("cy", 1, &forever());
    harness.advance(millis(60));
    harness.drop_guard("ann");
    harness.reply("s1", "yy");
    harness.advance(millis(40));
    assert_eq!(harness.drop_guard("ben"), ["run s1: release shared 1"]);
}

#[test]
fn contended_mode_change_restarts_the_count() {
    let mut harness = held(2);
    harness.request("ben", 1, &forever().shared());
    harness.request("cy", 1, &forever().shared());
    harness.request("dot", 1, &forever().shared());
    harness.drop_guard("ann");
    harness.reply("s1", "yn");
    harness.advance_to_next_timer();
    assert_eq!(
        harness.reply("s1", "y"),
        ["granted ben", "granted cy"],
        "two hand-offs"
    );
}

#[test]
fn sharers_wait_after_the_hand_off_limit() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().hand_off_limit(2, millis(100)));
    for who in ["ann", "ben", "cy"] {
        harness.request(who, 1, &forever().shared());
    }
    assert_eq!(harness.reply("s1", "y"), ["granted ann", "granted ben"]);
    harness.drop_guard("ann");
    assert_eq!(harness.drop_guard("ben"), ["run s1: release shared 1"]);
}

#[test]
fn sharers_do_not_wait_without_a_hand_off_limit() {
    let options = LockManagerOptions::new().hand_off_limit(u32::MAX, Duration::MAX);
    let mut harness = CoreHarness::opened(options);
    harness.request("ann", 1, &forever().shared());
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    harness.now += Duration::from_secs(3_600);
    assert_eq!(
        harness.request("ben", 1, &no_wait().shared()),
        ["granted ben"]
    );
}

#[test]
fn no_wait_does_not_overtake_during_a_yield() {
    let mut harness = held(1);
    harness.request("ben", 1, &forever());
    harness.drop_guard("ann");
    assert_eq!(
        harness.request("cy", 1, &no_wait()),
        ["failed cy: HeldElsewhere"]
    );
    harness.reply("s1", "y");
    assert_eq!(
        harness.request("dot", 1, &no_wait()),
        ["failed dot: HeldElsewhere"]
    );
}

/// The hand-off limit passed while the token was issued.
#[test]
fn no_wait_behind_a_token_is_refused_by_a_yield() {
    let mut harness = held(9);
    harness.request_with_token("ben", 1, &forever());
    assert_eq!(harness.drop_guard("ann"), ["run s1: issue token 1"]);
    assert_eq!(harness.request("cy", 1, &no_wait()), NO_COMMANDS);
    harness.advance(millis(100));
    let yields = ["failed cy: HeldElsewhere", "run s1: release 1"];
    assert_eq!(harness.reply("s1", "y"), yields);
}

#[test]
fn yield_ends_with_its_last_waiter() {
    let mut harness = held(1);
    harness.request("ben", 1, &forever());
    harness.drop_guard("ann");
    harness.cancel("ben");
    assert_eq!(harness.request("cy", 1, &no_wait()), NO_COMMANDS);
    assert_eq!(harness.reply("s1", "y"), ["run s1: acquire 1"]);
    assert_eq!(harness.reply("s1", "y"), ["granted cy"]);
}

#[test]
fn yield_may_end_before_the_release_reply() {
    let mut harness = held(1);
    harness.request("ben", 1, &forever());
    harness.drop_guard("ann");
    assert_eq!(harness.advance_to_next_timer(), NO_COMMANDS);
    assert_eq!(harness.reply("s1", "y"), ["run s1: acquire 1"]);
}

#[test]
fn release_of_unknown_lock_is_not_held() {
    let mut harness = held(9);
    harness.release("ann");
    assert_eq!(harness.reply("s1", "n"), ["released ann: NotHeld"]);
}

#[test]
fn zero_hand_off_time_grants_one_holder() {
    let mut harness =
        CoreHarness::opened(LockManagerOptions::new().hand_off_limit(9, Duration::ZERO));
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &forever());
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    assert_eq!(harness.drop_guard("ann"), ["run s1: release 1"]);
}

#[test]
fn second_release_of_a_grant_is_lost() {
    let mut harness = held(9);
    harness.release("ann");
    assert_eq!(harness.release("ann"), ["released ann: Lost"]);
    assert_eq!(harness.reply("s1", "y"), ["released ann"]);
}

/// The time limit passes while the server changes the mode.
#[test]
fn acquire_in_another_mode_is_followed_by_a_grant() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new());
    harness.request("ann", 1, &forever().mode(LockMode::Shared));
    harness.request("ben", 1, &forever());
    harness.request("cy", 1, &forever());
    assert_eq!(harness.reply("s1", "y"), ["granted ann"]);
    let changes = ["run s1: release shared 1, acquire 1"];
    assert_eq!(harness.release("ann"), changes);
    harness.advance(millis(1_000));
    assert_eq!(harness.reply("s1", "yy"), ["released ann", "granted ben"]);
    assert_eq!(harness.core.snapshot(harness.now).hand_offs, 0);
    // The time without a chance for other processes includes that before the change.
    assert_eq!(harness.release("ben"), ["run s1: release 1"]);
}
