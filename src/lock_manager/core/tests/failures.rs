//! Rounds that fail on a session that lives, and tokens.

use super::play::{Play, millis};
use crate::lock_manager::options::LockManagerOptions;
use crate::options::LockOptions;
use crate::session::{BatchReply, SessionError, TokenSource};

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

fn with_sequence() -> (Play, TokenSource) {
    let source = TokenSource::Sequence("fencing".into());
    let play = Play::opened(LockManagerOptions::new().fencing_tokens(source.clone()));
    (play, source)
}

#[test]
fn what_a_failed_round_may_have_taken_is_given_back_before_anybody_is_told() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    assert_eq!(play.fails("s1"), ["send s1: undo 1"]);
    assert_eq!(play.answers("s1", "y"), ["refused ann: TooManyLocks"]);
    assert_eq!(play.keys(), 0);
}

#[test]
fn whoever_is_next_is_asked_for_when_the_first_was_told() {
    let mut play = play();
    play.asks("ann", 1, &forever());
    play.asks("ben", 1, &forever());
    play.fails("s1");
    let told = play.answers("s1", "n");
    assert_eq!(told, ["refused ann: TooManyLocks", "send s1: take 1"]);
    assert_eq!(play.answers("s1", "y"), ["granted ben"]);
}

#[test]
fn a_failed_round_of_many_is_asked_again_one_by_one() {
    let mut play = play();
    play.asks("busy", 9, &no_wait());
    for (who, key) in [("ann", 1), ("ben", 2), ("cy", 3)] {
        play.asks(who, key, &forever());
    }
    play.answers("s1", "n");
    assert_eq!(play.fails("s1"), ["send s1: undo 1, undo 2, undo 3"]);
    assert_eq!(play.answers("s1", "yyn"), ["send s1: take 1"]);
    assert_eq!(play.answers("s1", "y"), ["granted ann", "send s1: take 2"]);
    // Its fault, and nobody else's.
    assert_eq!(play.fails("s1"), ["send s1: undo 2"]);
    let told = play.answers("s1", "n");
    assert_eq!(told, ["refused ben: TooManyLocks", "send s1: take 3"]);
    // Others go together again.
    play.asks("dot", 4, &no_wait());
    play.asks("eve", 5, &no_wait());
    let answer = play.answers("s1", "y");
    assert_eq!(answer, ["granted cy", "send s1: take 4, take 5"]);
}

#[test]
fn what_goes_alone_goes_after_what_was_before_it() {
    let mut play = play();
    for (who, key) in [("ann", 1), ("ben", 2)] {
        play.asks(who, key, &no_wait());
        play.answers("s1", "y");
    }
    play.later(millis(5_000));
    play.asks("cy", 3, &forever());
    play.asks("dot", 4, &forever());
    play.answers("s1", "");
    assert_eq!(play.fails("s1"), ["send s1: undo 3, undo 4"]);
    // Given back while it is undone, so before they are asked for again.
    play.drops("ann");
    play.drops("ben");
    let sent = play.answers("s1", "nn");
    assert_eq!(sent, ["send s1: give back 1, give back 2"]);
    assert_eq!(play.answers("s1", "yy"), ["send s1: take 3"]);
}

#[test]
fn a_lock_that_was_to_be_given_back_is_undone_once_and_asked_for_again() {
    let mut play = Play::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    let block = forever().strategy(crate::options::WaitStrategy::Block);
    play.asks("ann", 1, &block);
    play.asks("ben", 1, &block);
    play.answers("s1", "y");
    assert_eq!(play.releases("ann"), ["send s1: give back 1, take 1"]);
    assert_eq!(play.fails("s1"), ["send s1: undo 1"]);
    // It was held until then: the session has answered.
    let told = play.answers("s1", "y");
    assert_eq!(told, ["released ann", "refused ben: TooManyLocks"]);
}

#[test]
fn a_lock_given_back_in_a_failed_round_is_asked_for_again_by_those_who_come() {
    let mut play = play();
    play.asks("ann", 1, &no_wait());
    play.answers("s1", "y");
    play.releases("ann");
    play.asks("ben", 1, &no_wait());
    assert_eq!(play.fails("s1"), ["send s1: undo 1"]);
    let told = play.answers("s1", "n");
    assert_eq!(told, ["released ann", "send s1: take 1"]);
}

#[test]
fn a_session_that_cannot_undo_is_lost() {
    let mut play = play();
    play.asks("ann", 1, &no_wait());
    play.fails("s1");
    let lost = ["lost s1", "abandon s1", "refused ann: Database"];
    assert_eq!(play.fails("s1"), lost);
}

/// A client that hides the server's codes reports the end of a session as any other error.
#[test]
fn an_error_confirms_no_release() {
    let mut play = play();
    play.asks("ann", 1, &forever().shared());
    play.answers("s1", "y");
    play.asks("ben", 1, &forever().shared());
    play.later(millis(5_000));
    assert_eq!(play.releases("ann"), NOTHING);
    play.asks("cy", 2, &no_wait());
    assert_eq!(play.answers("s1", ""), ["send s1: take 2"]);
    let undoes = play.hears("s1", Err(SessionError::new("something")));
    assert_eq!(undoes, ["send s1: undo 2"]);
    let told = play.hears("s1", Err(SessionError::new("something")));
    let lost = [
        "lost s1",
        "abandon s1",
        "released ann: Lost",
        "refused cy: Database",
    ];
    assert_eq!(told, lost);
}

#[test]
fn the_answer_after_an_error_confirms_a_release() {
    let mut play = play();
    for who in ["ann", "ben"] {
        play.asks(who, 1, &forever().shared());
    }
    play.answers("s1", "y");
    play.drops("ben");
    play.asks("ben", 1, &forever().shared());
    play.asks("cy", 2, &no_wait());
    play.releases("ann");
    assert_eq!(play.fails("s1"), ["send s1: undo 2"]);
    let told = play.answers("s1", "n");
    assert_eq!(told, ["refused cy: TooManyLocks", "send s1: ping"]);
    assert_eq!(play.answers("s1", ""), ["released ann"]);
}

#[test]
fn a_token_comes_with_the_grant() {
    let mut play = play();
    assert_eq!(
        play.asks_fenced("ann", 1, &no_wait()),
        ["send s1: take fenced 1"]
    );
    assert_eq!(play.answers("s1", "y"), ["granted ann with 1"]);
}

#[test]
fn a_token_is_drawn_again_for_each_who_gets_it() {
    let mut play = play();
    play.asks_fenced("ann", 1, &forever());
    play.asks_fenced("ben", 1, &forever());
    assert_eq!(play.answers("s1", "y"), ["granted ann with 1"]);
    // The draw tells the releaser too.
    assert_eq!(play.releases("ann"), ["send s1: draw 1"]);
    assert_eq!(
        play.answers("s1", "y"),
        ["released ann", "granted ben with 2"]
    );
}

#[test]
fn a_token_that_nobody_wants_any_more_goes_to_nobody() {
    let mut play = play();
    play.asks_fenced("ann", 1, &forever());
    play.asks("ben", 1, &forever());
    play.cancels("ann");
    assert_eq!(play.answers("s1", "y"), ["granted ben"]);
    play.asks_fenced("cy", 1, &forever());
    play.drops("ben");
    play.cancels("cy");
    assert_eq!(play.answers("s1", "y"), ["send s1: give back 1"]);
}

#[test]
fn those_who_share_a_lock_have_tokens_of_their_own() {
    let mut play = play();
    play.asks_fenced("ann", 1, &forever().shared());
    play.asks_fenced("ben", 1, &forever().shared());
    let granted = play.answers("s1", "y");
    assert_eq!(granted, ["granted ann with 1", "send s1: draw shared 1"]);
    // It is held, and by one who may go.
    assert_eq!(play.drops("ann"), NOTHING);
    assert_eq!(play.answers("s1", "y"), ["granted ben with 2"]);
}

#[test]
fn who_does_not_wait_is_let_in_after_a_draw() {
    let mut play = play();
    play.asks("ann", 1, &forever().shared());
    play.answers("s1", "y");
    play.asks_fenced("ben", 1, &forever().shared());
    assert_eq!(play.asks("cy", 1, &no_wait().shared()), NOTHING);
    assert_eq!(
        play.answers("s1", "y"),
        ["granted ben with 1", "granted cy"]
    );
}

#[test]
fn a_draw_that_fails_is_of_the_first_in_the_queue() {
    let mut play = play();
    play.asks("ann", 1, &forever().shared());
    play.answers("s1", "y");
    play.asks_fenced("ben", 1, &forever().shared());
    play.asks("cy", 1, &forever().shared());
    // Nothing was taken, so there is nothing to undo but to see whether it lives.
    assert_eq!(play.fails("s1"), ["send s1: ping"]);
    assert_eq!(
        play.answers("s1", ""),
        ["refused ben: TooManyLocks", "granted cy"]
    );
}

#[test]
fn a_draw_that_failed_with_others_is_drawn_alone() {
    let mut play = play();
    play.asks("ann", 1, &forever().shared());
    play.answers("s1", "y");
    play.asks("busy", 9, &no_wait());
    play.asks_fenced("ben", 1, &forever().shared());
    play.asks("cy", 2, &no_wait());
    assert_eq!(
        play.answers("s1", "n"),
        [
            "refused busy: HeldElsewhere",
            "send s1: draw shared 1, take 2"
        ]
    );
    assert_eq!(play.fails("s1"), ["send s1: undo 2"]);
    assert_eq!(play.answers("s1", "n"), ["send s1: draw shared 1"]);
    assert_eq!(
        play.answers("s1", "y"),
        ["granted ben with 1", "send s1: take 2"]
    );
}

#[test]
fn a_sequence_gives_the_number_of_each_step() {
    let (mut play, source) = with_sequence();
    play.asks_fenced("ann", 1, &forever());
    assert_eq!(play.tokens_asked_of("s1"), source);
    let row = |number| BatchReply {
        answers: Some(vec![Some(number)]),
        token: Some(1),
        pid: 0,
    };
    let pid = play.pid("s1");
    assert_eq!(
        play.hears("s1", Ok(BatchReply { pid, ..row(41) })),
        ["granted ann with 41"]
    );
    play.asks_fenced("ben", 1, &forever());
    play.drops("ann");
    assert_eq!(play.tokens_asked_of("s1"), source);
    assert_eq!(
        play.hears("s1", Ok(BatchReply { pid, ..row(42) })),
        ["granted ben with 42"]
    );
}

/// It may not exist, and then every round that names it fails.
#[test]
fn the_sequence_is_named_only_for_tokens() {
    let (mut play, _) = with_sequence();
    play.asks("ann", 1, &forever());
    assert_eq!(play.tokens_asked_of("s1"), TokenSource::TransactionId);
    play.answers("s1", "y");
    play.later(millis(5_000));
    assert_eq!(play.tokens_asked_of("s1"), TokenSource::TransactionId);
}

#[test]
fn a_sequence_that_does_not_only_grow_is_refused_to_each_who_wants_a_token() {
    let (mut play, _) = with_sequence();
    let unfit = BatchReply {
        answers: Some(vec![None]),
        token: Some(0),
        pid: play.pid("s1"),
    };
    play.asks_fenced("ann", 1, &forever());
    play.asks("ben", 1, &forever());
    play.asks_fenced("cy", 1, &forever());
    let told = play.hears("s1", Ok(unfit.clone()));
    assert_eq!(told, ["refused ann: InvalidOptions", "send s1: take 1"]);
    play.answers("s1", "y");
    assert_eq!(play.drops("ben"), ["send s1: draw 1"]);
    let told = play.hears("s1", Ok(unfit));
    assert_eq!(told, ["refused cy: InvalidOptions", "send s1: give back 1"]);
}

#[test]
fn a_fit_sequence_may_still_be_refused_the_lock() {
    let (mut play, _) = with_sequence();
    play.asks_fenced("ann", 1, &no_wait());
    let busy = BatchReply {
        answers: Some(vec![None]),
        token: Some(1),
        pid: play.pid("s1"),
    };
    assert_eq!(play.hears("s1", Ok(busy)), ["refused ann: HeldElsewhere"]);
}
