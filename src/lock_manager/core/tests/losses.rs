//! Sessions that cannot be had, fall silent or end.

use super::play::{Play, millis};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::LockOptions;
use crate::session::BatchReply;
use std::time::Duration;

const NOTHING: [&str; 0] = [];
const KEEP_ALIVE: Duration = Duration::from_secs(5);

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
fn an_idle_session_is_asked_every_time_it_was_silent_for_so_long() {
    let mut play = play();
    assert_eq!(play.next(), Some(KEEP_ALIVE));
    for _ in 0..3 {
        assert_eq!(play.later(KEEP_ALIVE), ["send s1: ping"]);
        assert_eq!(play.later(millis(1)), NOTHING);
        assert_eq!(play.answers("s1", ""), NOTHING);
        assert_eq!(
            play.until_next(),
            NOTHING,
            "where the ping would have been late"
        );
        assert_eq!(play.next(), Some(millis(1)));
        assert_eq!(play.later(millis(1)), ["send s1: ping"]);
        play.answers("s1", "");
    }
}

#[test]
fn what_it_answers_is_a_sign_of_life() {
    let mut play = play();
    play.later(millis(4_900));
    play.asks("ann", 1, &no_wait());
    play.answers("s1", "n");
    assert_eq!(play.later(millis(100)), NOTHING);
    assert_eq!(play.next(), Some(millis(4_900)));
    assert_eq!(play.until_next(), ["send s1: ping"]);
}

/// For every moment of the last answer between two looks.
#[test]
fn a_silent_session_is_given_up_within_twice_that_time() {
    for busy in (0..5_000).step_by(100) {
        let mut play = play();
        play.later(millis(busy));
        play.asks("ann", 1, &no_wait());
        play.answers("s1", "y");
        let silent = play.now;
        loop {
            let commands = play.until_next();
            if commands.iter().any(|command| command == "lost s1") {
                break;
            }
        }
        let after = play.now - silent;
        assert_eq!(after, 2 * KEEP_ALIVE, "an answer after {busy} ms");
    }
}

#[test]
fn a_round_without_an_answer_ends_the_session_in_that_time() {
    let mut play = play();
    play.later(millis(3_000));
    play.asks("ann", 1, &forever());
    assert_eq!(play.later(millis(4_999)), NOTHING);
    assert_eq!(play.later(millis(1)), ["lost s1", "abandon s1"]);
    assert_eq!(play.until_next(), ["open s2"], "ann waits on");
}

#[test]
fn an_undoing_round_without_an_answer_ends_the_session_too() {
    let mut play = play();
    play.asks("ann", 1, &no_wait());
    play.fails("s1");
    let lost = ["lost s1", "abandon s1", "refused ann: Database"];
    assert_eq!(play.later(KEEP_ALIVE), lost);
}

#[test]
fn one_look_at_a_time_and_none_after_its_end() {
    let mut play = Play::opened(LockManagerOptions::new());
    for _ in 0..20 {
        play.later(KEEP_ALIVE);
        play.answers("s1", "");
        assert_eq!(play.timers(), 1);
    }
    play.later(KEEP_ALIVE);
    play.dies("s1");
    assert_eq!(play.timers(), 0);
}

#[test]
fn a_lost_session_loses_its_own_locks_only() {
    let mut play = Play::opened(LockManagerOptions::new().max_sessions(2));
    play.asks("ann", 1, &no_wait());
    assert_eq!(play.asks("ben", 2, &no_wait()), ["open s2"]);
    assert_eq!(play.answers("s1", "y"), ["granted ann", "send s1: take 2"]);
    play.opens("s2");
    assert_eq!(play.asks("cy", 3, &no_wait()), ["send s2: take 3"]);
    assert_eq!(play.answers("s2", "y"), ["granted cy"]);
    let lost = ["lost s1", "abandon s1", "refused ben: Database"];
    assert_eq!(play.dies("s1"), lost);
    assert_eq!(play.releases("ann"), ["released ann: Lost"]);
    assert_eq!(play.releases("cy"), ["send s2: give back 3"]);
}

#[test]
fn nothing_is_taken_again_in_silence_and_those_who_wait_go_on() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.asks("ben", 1, &forever());
    play.answers("s1", "y");
    play.later(KEEP_ALIVE);
    assert_eq!(play.dies("s1"), ["lost s1", "abandon s1"]);
    assert_eq!(play.until_next(), ["open s2"]);
    assert_eq!(play.opens("s2"), ["send s2: take 1"]);
    assert_eq!(play.answers("s2", "y"), ["granted ben"]);
}

#[test]
fn releases_that_were_not_confirmed_are_told_of_the_loss() {
    let mut play = play();
    for (who, key) in [("ann", 1), ("ben", 1), ("cy", 2), ("dot", 1)] {
        play.asks(who, key, &forever().shared());
        if key == 2 || who == "ann" {
            play.answers("s1", "y");
        }
    }
    // In a round that is in flight; for the next; and being given back.
    assert_eq!(play.releases("ann"), ["send s1: ping"]);
    assert_eq!(play.releases("ben"), NOTHING);
    assert_eq!(play.releases("cy"), NOTHING);
    let mut told = play.dies("s1");
    told.sort();
    let lost = [
        "abandon s1",
        "lost s1",
        "released ann: Lost",
        "released ben: Lost",
        "released cy: Lost",
    ];
    assert_eq!(told, lost);
}

#[test]
fn a_session_that_is_lost_while_it_draws_loses_those_who_share_the_lock() {
    let mut play = play();
    play.asks("ann", 1, &forever().shared());
    play.answers("s1", "y");
    assert_eq!(
        play.asks_fenced("ben", 1, &forever().shared()),
        ["send s1: draw shared 1"]
    );
    assert_eq!(
        play.asks("cy", 1, &no_wait().shared()),
        NOTHING,
        "the draw decides"
    );
    let lost = ["lost s1", "abandon s1", "refused cy: Database"];
    assert_eq!(play.dies("s1"), lost);
    assert_eq!(play.releases("ann"), ["released ann: Lost"]);
    assert_eq!(play.until_next(), ["open s2"], "ben waits on");
}

#[test]
fn a_session_that_is_lost_while_it_gives_back_is_replaced_after_a_pause() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.asks("ben", 1, &forever().shared());
    play.answers("s1", "y");
    assert_eq!(
        play.releases("ann"),
        ["send s1: give back 1, take shared 1"]
    );
    let lost = ["lost s1", "abandon s1", "released ann: Lost"];
    assert_eq!(play.dies("s1"), lost);
    assert!(play.next().is_some_and(|pause| pause > Duration::ZERO));
    assert_eq!(play.until_next(), ["open s2"]);
}

#[test]
fn answers_of_a_session_that_is_gone_are_nothing() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.later(KEEP_ALIVE);
    assert_eq!(play.answers("s1", "y"), NOTHING);
    assert_eq!(play.opens("s1"), NOTHING);
    assert_eq!(play.is_granted("s1"), NOTHING);
    assert_eq!(play.is_gone("s1"), NOTHING);
}

#[test]
fn an_answer_to_nothing_ends_the_session() {
    let lost = ["lost s1", "abandon s1"];
    let mut play = play();
    play.later(KEEP_ALIVE);
    play.answers("s1", "");
    assert_eq!(play.answers("s1", ""), lost);
    let mut play = self::play();
    assert_eq!(play.opens("s1"), lost);
    let mut play = self::play();
    assert_eq!(play.is_granted("s1"), lost);
}

#[test]
fn another_session_that_answers_is_a_pooler_and_everybody_is_told() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.asks("ben", 1, &no_wait());
    let told = [
        "lost s1",
        "abandon s1",
        "refused ann: SessionChanged",
        "refused ben: SessionChanged",
    ];
    assert_eq!(play.answers_as("s1", "y", 1), told);
    assert_eq!((play.keys(), play.timers()), (0, 0));
}

#[test]
fn answers_that_are_not_one_for_each_step_are_of_no_session_of_ours() {
    let mut play = play();
    play.asks("ann", 1, &no_wait());
    let row = BatchReply {
        answers: None,
        token: None,
        pid: play.pid("s1"),
    };
    let told = ["lost s1", "abandon s1", "refused ann: SessionChanged"];
    assert_eq!(play.hears("s1", Ok(row)), told);
}

#[test]
fn the_first_session_that_cannot_be_had_is_everybodys_error() {
    let mut play = Play::new(LockManagerOptions::new());
    play.asks("ann", 1, &forever());
    play.asks("ben", 2, &no_wait());
    let mut told = play.cannot_open("s1");
    told.sort();
    assert_eq!(told, ["refused ann: Pool", "refused ben: Pool"]);
    assert_eq!((play.keys(), play.timers()), (0, 0));
}

#[test]
fn a_database_that_was_there_may_come_back() {
    let mut play = play();
    play.asks("ann", 1, &LockOptions::wait_up_to(millis(2_000)));
    play.dies("s1");
    assert_eq!(play.until_next(), ["open s2"]);
    assert_eq!(play.asks("ben", 1, &no_wait()), NOTHING);
    assert_eq!(play.cannot_open("s2"), ["refused ben: Pool"]);
    let mut pauses = Vec::new();
    for session in ["s3", "s4", "s5", "s6", "s7"] {
        pauses.push(play.next().expect("ann waits"));
        assert_eq!(play.until_next(), [format!("open {session}")]);
        play.cannot_open(session);
    }
    assert!(pauses.iter().all(|pause| *pause > millis(25)), "{pauses:?}");
    assert!(pauses[4] >= millis(450), "they grow: {pauses:?}");
    // Why is more than that it was not granted.
    let rest = play.later(millis(2_000));
    assert!(rest.contains(&"refused ann: Pool".to_owned()), "{rest:?}");
}

#[test]
fn a_session_that_is_there_again_begins_with_short_pauses() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.dies("s1");
    for session in ["s2", "s3", "s4", "s5", "s6"] {
        play.until_next();
        play.cannot_open(session);
    }
    play.until_next();
    play.opens("s7");
    play.dies("s7");
    play.until_next();
    play.cannot_open("s8");
    assert!(play.next().is_some_and(|pause| pause <= millis(63)));
}

/// The second session is for more work at once. A pool that has none to give leaves the first one as it is.
#[test]
fn nobody_waits_for_a_further_session() {
    let mut play = Play::opened(LockManagerOptions::new().max_sessions(3));
    play.asks("ann", 1, &no_wait());
    assert_eq!(play.asks("ben", 2, &no_wait()), ["open s2"]);
    assert_eq!(play.asks("cy", 3, &no_wait()), NOTHING, "one at a time");
    let answer = play.answers("s1", "y");
    assert_eq!(answer, ["granted ann", "send s1: take 2, take 3"]);
    assert_eq!(play.cannot_open("s2"), NOTHING);
    assert_eq!(
        play.asks("dot", 4, &no_wait()),
        NOTHING,
        "not again at once"
    );
    play.later(millis(1_000));
    assert_eq!(play.asks("eve", 5, &no_wait()), ["open s3"]);
}

#[test]
fn a_further_session_that_cannot_be_had_is_not_why_a_limit_passed() {
    let mut play = Play::opened(LockManagerOptions::new().max_sessions(2));
    play.asks("ann", 1, &no_wait());
    play.asks("ben", 2, &LockOptions::wait_up_to(millis(50)));
    play.answers("s1", "n");
    play.cannot_open("s2");
    play.answers("s1", "n");
    let mut told = Vec::new();
    while play.next().is_some_and(|next| next < millis(1_000)) && told.is_empty() {
        told = play.until_next();
        if told == ["send s1: take 2"] {
            play.answers("s1", "n");
            told.clear();
        }
    }
    assert_eq!(told, ["refused ben: TimedOut"]);
}

#[test]
fn the_session_with_nothing_to_do_is_asked() {
    let mut play = Play::opened(LockManagerOptions::new().max_sessions(2));
    play.asks("ann", 1, &no_wait());
    play.asks("ben", 2, &no_wait());
    play.opens("s2");
    assert_eq!(play.asks("cy", 3, &no_wait()), ["send s2: take 3"]);
    // Both are busy, and s1 has one key more to ask for.
    assert_eq!(play.asks("dot", 4, &no_wait()), NOTHING);
    assert_eq!(play.answers("s2", "y"), ["granted cy", "send s2: take 4"]);
}

#[test]
fn no_more_sessions_than_said() {
    let mut play = Play::opened(LockManagerOptions::new());
    play.asks("ann", 1, &no_wait());
    assert_eq!(play.asks("ben", 2, &no_wait()), NOTHING);
    assert_eq!(play.asks("cy", 3, &no_wait()), NOTHING);
}

#[test]
fn a_keep_alive_that_no_clock_reaches_is_none() {
    let play = Play::opened(LockManagerOptions::new().keep_alive(Duration::MAX));
    assert_eq!(play.timers(), 0);
}

#[test]
fn what_is_held_on_another_session_is_of_another_generation() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.answers("s1", "y");
    let first = play.generation("s1");
    play.dies("s1");
    play.asks("ben", 1, &forever());
    assert!(first < play.generation("s2"));
}
