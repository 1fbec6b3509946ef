//! Who waits, who is refused, and when the server is asked.

use super::play::{Play, millis};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::LockOptions;
use std::time::Duration;

const NOTHING: [&str; 0] = [];

fn no_wait() -> LockOptions {
    LockOptions::no_wait()
}

fn forever() -> LockOptions {
    LockOptions::wait_forever()
}

fn play() -> Play {
    Play::opened(LockManagerOptions::new())
}

#[test]
fn a_free_lock_takes_one_question_and_one_answer() {
    let mut play = Play::new(LockManagerOptions::new());
    assert_eq!(play.asks("ann", 1, &no_wait()), ["open s1"]);
    assert_eq!(play.opens("s1"), ["send s1: take 1"]);
    assert_eq!(play.answers("s1", "y"), ["granted ann"]);
    assert_eq!(play.releases("ann"), ["send s1: give back 1"]);
    assert_eq!(play.answers("s1", "y"), ["released ann"]);
    assert_eq!(play.keys(), 0, "a key that nobody uses takes no room");
}

#[test]
fn those_who_do_not_wait_are_told_at_the_first_no() {
    let mut play = play();
    play.asks("ann", 1, &no_wait());
    assert_eq!(play.answers("s1", "n"), ["refused ann: HeldElsewhere"]);
    play.asks("ben", 1, &LockOptions::wait_up_to(Duration::ZERO));
    assert_eq!(play.answers("s1", "n"), ["refused ben: TimedOut"]);
    assert_eq!(play.keys(), 0);
}

#[test]
fn a_limit_is_kept_though_no_answer_comes() {
    let mut play = play();
    play.asks("ann", 1, &LockOptions::wait_up_to(millis(20)));
    assert_eq!(play.next(), Some(millis(20)));
    assert_eq!(play.later(millis(19)), NOTHING);
    assert_eq!(play.later(millis(1)), ["refused ann: TimedOut"]);
    // It comes after all: it is given back.
    assert_eq!(play.answers("s1", "y"), ["send s1: give back 1"]);
}

#[test]
fn a_limit_that_no_clock_reaches_is_none() {
    let mut play = play();
    play.asks("ann", 1, &LockOptions::wait_up_to(Duration::MAX));
    play.answers("s1", "n");
    assert!(play.next().is_some_and(|next| next <= millis(100)));
}

#[test]
fn an_answer_removes_the_limit() {
    let mut play = play();
    let before = play.timers();
    let soon = LockOptions::wait_up_to(millis(20));
    play.asks("ann", 1, &soon);
    play.asks("ben", 1, &soon);
    assert_eq!(play.answers("s1", "y"), ["granted ann"]);
    play.cancels("ben");
    assert_eq!(play.timers(), before);
}

#[test]
fn they_are_served_in_the_order_in_which_they_came() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.asks("ben", 1, &forever());
    play.asks("cy", 1, &forever());
    assert_eq!(play.answers("s1", "y"), ["granted ann"]);
    assert_eq!(play.drops("ann"), ["granted ben"]);
    assert_eq!(play.cancels("cy"), NOTHING);
    assert_eq!(play.drops("ben"), ["send s1: give back 1"]);
}

#[test]
fn whoever_does_not_wait_does_not_overtake() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.answers("s1", "n");
    assert_eq!(
        play.asks("ben", 1, &no_wait()),
        ["refused ben: HeldElsewhere"]
    );
    assert_eq!(play.until_next(), ["send s1: take 1"]);
    assert_eq!(play.asks("cy", 1, &no_wait()), NOTHING);
    let answers = play.answers("s1", "y");
    assert_eq!(answers, ["granted ann", "refused cy: HeldElsewhere"]);
    assert_eq!(
        play.asks("dot", 1, &no_wait()),
        ["refused dot: HeldElsewhere"]
    );
}

/// The holder may have given it back after the server answered, and told this one.
#[test]
fn a_no_is_only_for_those_who_were_there_when_it_was_asked_for() {
    let mut play = play();
    play.asks("ann", 1, &no_wait());
    assert_eq!(play.asks("ben", 1, &no_wait()), NOTHING);
    let answer = play.answers("s1", "n");
    assert_eq!(answer, ["refused ann: HeldElsewhere", "send s1: take 1"]);
    assert_eq!(play.answers("s1", "y"), ["granted ben"]);
}

#[test]
fn a_no_to_an_exclusive_lock_is_none_to_a_shared_one() {
    let mut play = play();
    play.asks("busy", 9, &no_wait());
    play.asks("ann", 1, &no_wait());
    play.asks("ben", 1, &no_wait().shared());
    assert_eq!(
        play.answers("s1", "n"),
        ["refused busy: HeldElsewhere", "send s1: take 1"]
    );
    let answer = play.answers("s1", "n");
    assert_eq!(
        answer,
        ["refused ann: HeldElsewhere", "send s1: take shared 1"]
    );
    assert_eq!(play.answers("s1", "y"), ["granted ben"]);
}

#[test]
fn a_no_to_a_shared_lock_is_one_to_an_exclusive_one() {
    let mut play = play();
    // Both are there when the key is asked for, because the session is busy until then.
    play.asks("ann", 1, &forever());
    play.cancels("ann");
    play.asks("ben", 1, &no_wait().shared());
    let asked = play.answers("s1", "n");
    assert_eq!(asked, ["send s1: take shared 1"]);
    play.asks("cy", 1, &no_wait());
    let asked = play.answers("s1", "n");
    assert_eq!(asked, ["refused ben: HeldElsewhere", "send s1: take 1"]);
    assert_eq!(play.answers("s1", "n"), ["refused cy: HeldElsewhere"]);
}

#[test]
fn whoever_does_not_wait_and_was_asked_for_with_others_is_refused_with_them() {
    let mut play = play();
    play.asks("ann", 1, &no_wait());
    for who in ["ben", "cy", "dot"] {
        play.asks(who, 1, &no_wait());
    }
    play.answers("s1", "n");
    let refused = [
        "refused ben: HeldElsewhere",
        "refused cy: HeldElsewhere",
        "refused dot: HeldElsewhere",
    ];
    assert_eq!(
        play.answers("s1", "n"),
        refused,
        "one question for all three"
    );
}

#[test]
fn a_shared_lock_is_shared_until_somebody_wants_it_alone() {
    let mut play = play();
    for who in ["ann", "ben"] {
        play.asks(who, 1, &forever().shared());
    }
    assert_eq!(play.answers("s1", "y"), ["granted ann", "granted ben"]);
    assert_eq!(play.asks("cy", 1, &forever()), NOTHING);
    assert_eq!(
        play.asks("dot", 1, &forever().shared()),
        NOTHING,
        "behind cy"
    );
    assert_eq!(play.drops("ben"), NOTHING);
    assert_eq!(play.drops("ann"), ["send s1: give back shared 1, take 1"]);
    assert_eq!(play.answers("s1", "yy"), ["granted cy"]);
}

#[test]
fn when_the_first_in_the_queue_goes_the_next_has_what_it_kept_them_from() {
    let mut play = play();
    play.asks("ann", 1, &forever().shared());
    play.answers("s1", "y");
    play.asks("ben", 1, &forever());
    play.asks("cy", 1, &forever().shared());
    assert_eq!(play.cancels("ben"), ["granted cy"]);
}

#[test]
fn when_another_than_the_first_goes_nothing_changes() {
    let mut play = play();
    play.asks("ann", 1, &forever().shared());
    play.answers("s1", "y");
    play.asks("ben", 1, &forever());
    play.asks("cy", 1, &forever().shared());
    play.asks("dot", 1, &forever().shared());
    assert_eq!(play.cancels("cy"), NOTHING);
    assert_eq!(play.cancels("cy"), NOTHING, "twice");
    assert_eq!(play.cancels("ben"), ["granted dot"]);
}

#[test]
fn it_is_granted_in_a_mode_that_nobody_wants_any_more() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.asks("ben", 1, &forever().shared());
    play.cancels("ann");
    assert_eq!(
        play.answers("s1", "y"),
        ["send s1: give back 1, take shared 1"]
    );
    assert_eq!(play.answers("s1", "yy"), ["granted ben"]);
}

#[test]
fn what_gathers_while_a_round_is_in_flight_goes_with_the_next() {
    let mut play = play();
    play.asks("ann", 1, &no_wait());
    play.asks("ben", 2, &no_wait());
    play.asks("cy", 3, &no_wait());
    let answer = play.answers("s1", "y");
    assert_eq!(answer, ["granted ann", "send s1: take 2, take 3"]);
}

#[test]
fn a_round_has_so_many_steps_and_no_more() {
    let mut options = LockManagerOptions::new();
    options.0.max_batch_len = 2;
    let mut play = Play::opened(options);
    for (who, key) in [("ann", 1), ("ben", 2), ("cy", 3), ("dot", 4)] {
        play.asks(who, key, &no_wait());
    }
    assert_eq!(
        play.answers("s1", "y"),
        ["granted ann", "send s1: take 2, take 3"]
    );
    let answer = play.answers("s1", "yy");
    assert_eq!(answer, ["granted ben", "granted cy", "send s1: take 4"]);
}

#[test]
fn pauses_grow_and_are_never_longer_than_the_interval() {
    let interval = millis(160);
    let mut play = Play::opened(LockManagerOptions::new().keep_alive(Duration::MAX));
    play.asks("ann", 1, &forever().interval(interval));
    play.answers("s1", "n");
    let mut pauses = Vec::new();
    for _ in 0..200 {
        let pause = play.next().expect("it asks again");
        assert!(pause > Duration::ZERO && pause <= interval, "{pause:?}");
        pauses.push(pause);
        assert_eq!(play.until_next(), ["send s1: take 1"]);
        // Answered beside the grid.
        play.later(millis(3));
        play.answers("s1", "n");
    }
    assert!(pauses[0] <= interval / 8, "{pauses:?}");
    // The upper half, less the sixteenth that the grid may take.
    let grown = interval / 2 - interval / 16;
    assert!(
        pauses[8..].iter().all(|pause| *pause >= grown),
        "{pauses:?}"
    );
    assert!(pauses[8..].iter().any(|pause| *pause > interval * 7 / 8));
}

#[test]
fn keys_that_wait_in_one_rhythm_are_asked_for_together() {
    let mut play = play();
    let names: Vec<&'static str> = (0..200).map(|at| &*format!("{at}").leak()).collect();
    play.asks("busy", 0, &no_wait());
    for (key, who) in (1..).zip(&names) {
        play.asks(who, key, &forever());
    }
    play.answers("s1", "n");
    let (mut rounds, mut asked, began) = (1, 0, play.now);
    play.answers("s1", &"n".repeat(200));
    while play.now < began + Duration::from_secs(4) {
        let sent = play.until_next();
        // Pings, too.
        rounds += sent.len();
        let steps: usize = sent.iter().map(|text| text.matches("take").count()).sum();
        asked += steps;
        if !sent.is_empty() {
            play.answers("s1", &"n".repeat(steps));
        }
    }
    assert!(asked >= 8_000, "each about ten times a second: {asked}");
    // Sixteen points of the grid in each 100 ms, and not more rounds than points.
    assert!(rounds <= 640 + 1, "{rounds}");
}

#[test]
fn whoever_becomes_first_waits_in_its_own_rhythm() {
    let hour = Duration::from_secs(3_600);
    let mut play = play();
    play.asks("ann", 1, &forever().interval(hour));
    play.asks("ben", 1, &forever().interval(millis(16)));
    play.answers("s1", "n");
    play.cancels("ann");
    assert!(
        play.next().is_some_and(|next| next <= millis(2)),
        "{:?}",
        play.next()
    );
    assert_eq!(play.until_next(), ["send s1: take 1"]);
    play.answers("s1", "n");
    assert!(
        play.next().is_some_and(|next| next <= millis(16)),
        "{:?}",
        play.next()
    );
}

#[test]
fn those_who_come_and_go_do_not_put_the_question_off() {
    let hour = Duration::from_secs(3_600);
    let mut play = play();
    play.asks("ann", 1, &forever().interval(millis(16)));
    play.asks("ben", 1, &forever().interval(hour));
    play.answers("s1", "n");
    let due = play.next();
    play.cancels("ann");
    assert_eq!(play.next(), due);
}

#[test]
fn nobody_is_left_to_ask_again_for() {
    let mut play = play();
    let before = play.timers();
    play.asks("ann", 1, &forever());
    play.answers("s1", "n");
    assert_eq!(play.timers(), before + 1);
    play.cancels("ann");
    assert_eq!((play.timers(), play.keys()), (before, 0));
}

#[test]
fn a_lock_that_is_asked_for_in_vain_is_given_back() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.cancels("ann");
    assert_eq!(play.keys(), 1, "the answer is still to come");
    assert_eq!(play.answers("s1", "y"), ["send s1: give back 1"]);
    assert_eq!(play.answers("s1", "y"), NOTHING);
    assert_eq!(play.keys(), 0);
}

#[test]
fn whoever_comes_while_a_lock_is_given_back_is_asked_for_after_it() {
    let mut play = play();
    play.asks("ann", 1, &no_wait());
    play.answers("s1", "y");
    play.releases("ann");
    assert_eq!(play.asks("ben", 1, &no_wait()), NOTHING);
    assert_eq!(play.answers("s1", "y"), ["released ann", "send s1: take 1"]);
}

#[test]
fn the_longest_pause_is_a_day() {
    let day = Duration::from_secs(24 * 60 * 60);
    let mut play = Play::opened(LockManagerOptions::new().keep_alive(Duration::MAX));
    play.asks("ann", 1, &forever().interval(Duration::MAX));
    for _ in 0..6 {
        play.answers("s1", "n");
        assert!(play.next().is_some_and(|pause| pause <= day));
        play.until_next();
    }
    play.answers("s1", "n");
    assert!(play.next().is_some_and(|pause| pause >= day * 7 / 16));
}
