//! How a lock goes from one to the next, and how long it stays in the process.

use super::play::{Play, millis};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::{LockOptions, WaitStrategy};
use std::time::Duration;

const NOTHING: [&str; 0] = [];

fn forever() -> LockOptions {
    LockOptions::wait_forever().interval(millis(160))
}

fn no_wait() -> LockOptions {
    LockOptions::no_wait()
}

/// Ann has it; so many turns, and 100 ms.
fn held(turns: u32) -> Play {
    let mut play = Play::opened(LockManagerOptions::new().hand_off_limit(turns, millis(100)));
    play.asks("ann", 1, &forever());
    assert_eq!(play.answers("s1", "y"), ["granted ann"]);
    play
}

#[test]
fn a_hand_off_needs_no_round_trip_and_the_answer_to_a_release_needs_one() {
    let mut play = held(9);
    play.asks("ben", 1, &forever());
    assert_eq!(play.releases("ann"), ["granted ben", "send s1: ping"]);
    assert_eq!(play.answers("s1", ""), ["released ann"]);
}

#[test]
fn a_release_is_confirmed_by_a_round_that_was_sent_after_it() {
    let mut play = held(9);
    play.asks("ben", 1, &forever());
    play.asks("other", 2, &no_wait());
    assert_eq!(play.releases("ann"), ["granted ben"]);
    assert_eq!(play.answers("s1", "y"), ["granted other", "send s1: ping"]);
    assert_eq!(play.answers("s1", ""), ["released ann"]);
}

/// Ann gives it back after her only turn, and ben waits; how long it is left to others.
fn pause_after(play: &mut Play) -> Duration {
    assert_eq!(play.drops("ann"), ["send s1: give back 1"]);
    let pause = play.next().expect("ben waits");
    assert_eq!(play.answers("s1", "y"), NOTHING);
    assert_eq!(play.until_next(), ["send s1: take 1"]);
    pause
}

#[test]
fn where_nobody_else_was_seen_others_have_a_short_pause() {
    let mut play = held(1);
    play.asks("ben", 1, &forever());
    let pause = pause_after(&mut play);
    // The first pause of those who poll, on a grid of a sixteenth.
    assert!(pause >= millis(5) && pause <= millis(20), "{pause:?}");
    assert_eq!(play.answers("s1", "y"), ["granted ben"]);
}

#[test]
fn once_somebody_else_had_it_others_have_a_pause_of_half_an_interval_at_least() {
    let mut play = Play::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    play.asks("ann", 1, &forever());
    play.asks("ben", 1, &forever());
    assert_eq!(play.answers("s1", "n"), NOTHING);
    play.until_next();
    assert_eq!(play.answers("s1", "y"), ["granted ann"]);
    let pause = pause_after(&mut play);
    assert!(pause >= millis(70) && pause <= millis(160), "{pause:?}");
}

#[test]
fn a_pause_that_nobody_used_is_halved_the_next_time() {
    let mut play = Play::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    play.asks("ann", 1, &forever());
    play.asks("ben", 1, &forever());
    play.answers("s1", "n");
    play.until_next();
    play.answers("s1", "y");
    pause_after(&mut play);
    assert_eq!(play.answers("s1", "y"), ["granted ben"]);
    play.asks("cy", 1, &forever());
    assert_eq!(play.drops("ben"), ["send s1: give back 1"]);
    let pause = play.next().expect("cy waits");
    assert!(pause >= millis(30) && pause <= millis(90), "{pause:?}");
}

#[test]
fn after_so_much_time_others_have_a_pause() {
    let mut play = held(9);
    play.asks("ben", 1, &forever());
    play.later(millis(99));
    assert_eq!(play.drops("ann"), ["granted ben"]);
    play.asks("cy", 1, &forever());
    play.later(millis(1));
    assert_eq!(play.drops("ben"), ["send s1: give back 1"]);
}

#[test]
fn with_no_turns_every_holder_asks_the_server() {
    for turns in [0, 1] {
        let mut play = held(turns);
        play.asks("ben", 1, &forever());
        assert_eq!(play.drops("ann"), ["send s1: give back 1"]);
    }
}

#[test]
fn those_who_wait_on_the_server_are_before_us_without_a_pause() {
    let mut play = held(1);
    play.asks("ben", 1, &forever().strategy(WaitStrategy::Block));
    assert_eq!(play.drops("ann"), ["send s1: give back 1, take 1"]);
    // They have it.
    let answer = play.answers("s1", "yn");
    assert_eq!(answer, ["wait s2: 1 forever"]);
}

#[test]
fn the_turns_count_from_the_chance_that_others_had() {
    let mut play = held(2);
    for who in ["ben", "cy", "dot", "eve"] {
        play.asks(who, 1, &forever().strategy(WaitStrategy::Block));
    }
    assert_eq!(play.drops("ann"), ["granted ben"]);
    assert_eq!(play.drops("ben"), ["send s1: give back 1, take 1"]);
    assert_eq!(play.answers("s1", "yy"), ["granted cy"]);
    assert_eq!(play.drops("cy"), ["granted dot"]);
    assert_eq!(play.drops("dot"), ["send s1: give back 1, take 1"]);
}

/// To take it again in another mode, in the same breath, gives nobody a chance who polls.
#[test]
fn a_change_of_mode_is_a_turn_as_any_other() {
    let mut play = held(3);
    play.asks("ben", 1, &forever().shared());
    play.asks("cy", 1, &forever());
    play.asks("dot", 1, &forever());
    assert_eq!(play.drops("ann"), ["send s1: give back 1, take shared 1"]);
    assert_eq!(play.answers("s1", "yy"), ["granted ben"]);
    assert_eq!(play.drops("ben"), ["send s1: give back shared 1, take 1"]);
    assert_eq!(play.answers("s1", "yy"), ["granted cy"]);
    assert_eq!(play.drops("cy"), ["send s1: give back 1"], "the third turn");
}

#[test]
fn the_time_counts_over_a_change_of_mode() {
    let mut play = held(9);
    play.asks("ben", 1, &forever().shared());
    play.asks("cy", 1, &forever());
    play.later(millis(60));
    play.drops("ann");
    play.answers("s1", "yy");
    play.later(millis(40));
    assert_eq!(play.drops("ben"), ["send s1: give back shared 1"]);
}

#[test]
fn a_no_to_the_change_of_mode_begins_the_turns_anew() {
    let mut play = held(2);
    play.asks("ben", 1, &forever().shared());
    play.asks("cy", 1, &forever().shared());
    play.asks("dot", 1, &forever().shared());
    play.drops("ann");
    play.answers("s1", "yn");
    play.until_next();
    assert_eq!(
        play.answers("s1", "y"),
        ["granted ben", "granted cy"],
        "two turns"
    );
}

#[test]
fn readers_who_come_when_it_is_overdue_wait_until_it_was_given_back() {
    let mut play = Play::opened(LockManagerOptions::new().hand_off_limit(2, millis(100)));
    for who in ["ann", "ben", "cy"] {
        play.asks(who, 1, &forever().shared());
    }
    assert_eq!(play.answers("s1", "y"), ["granted ann", "granted ben"]);
    play.drops("ann");
    assert_eq!(play.drops("ben"), ["send s1: give back shared 1"]);
}

#[test]
fn in_the_pause_nobody_who_does_not_wait_overtakes() {
    let mut play = held(1);
    play.asks("ben", 1, &forever());
    play.drops("ann");
    assert_eq!(
        play.asks("cy", 1, &no_wait()),
        ["refused cy: HeldElsewhere"]
    );
    play.answers("s1", "y");
    assert_eq!(
        play.asks("dot", 1, &no_wait()),
        ["refused dot: HeldElsewhere"]
    );
}

#[test]
fn a_pause_that_nobody_waits_for_any_more_keeps_nobody_waiting() {
    let mut play = held(1);
    play.asks("ben", 1, &forever());
    play.drops("ann");
    play.cancels("ben");
    assert_eq!(play.asks("cy", 1, &no_wait()), NOTHING);
    assert_eq!(play.answers("s1", "y"), ["send s1: take 1"]);
    assert_eq!(play.answers("s1", "y"), ["granted cy"]);
}

#[test]
fn a_pause_may_be_over_before_it_is_given_back() {
    let mut play = held(1);
    play.asks("ben", 1, &forever());
    play.drops("ann");
    assert_eq!(play.until_next(), NOTHING);
    assert_eq!(play.answers("s1", "y"), ["send s1: take 1"]);
}

#[test]
fn what_the_server_no_longer_knows_was_not_held() {
    let mut play = held(9);
    play.releases("ann");
    assert_eq!(play.answers("s1", "n"), ["released ann: NotHeld"]);
}

#[test]
fn the_shortest_tenure_still_lets_somebody_in() {
    let mut play = Play::opened(LockManagerOptions::new().hand_off_limit(9, Duration::ZERO));
    play.asks("ann", 1, &forever());
    play.asks("ben", 1, &forever());
    assert_eq!(play.answers("s1", "y"), ["granted ann"]);
    assert_eq!(play.drops("ann"), ["send s1: give back 1"]);
}

#[test]
fn a_lock_is_given_back_once() {
    let mut play = held(9);
    play.releases("ann");
    assert_eq!(play.releases("ann"), ["released ann: Lost"]);
    assert_eq!(play.answers("s1", "y"), ["released ann"]);
}
