//! Failed batches on a session that lives; fencing tokens.

use super::harness::{CoreHarness, NO_COMMANDS, forever, harness, millis, no_wait};
use crate::lock_manager::core::{Command, SessionId};
use crate::lock_manager::options::LockManagerOptions;
use crate::session::{BatchReply, ServerSigns, SessionError, TokenSource};

fn with_sequence() -> (CoreHarness, TokenSource) {
    let source = TokenSource::Sequence("fencing".into());
    let harness = CoreHarness::opened(LockManagerOptions::new().fencing_tokens(source.clone()));
    (harness, source)
}

#[test]
fn failed_batch_is_compensated_before_replies() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    assert_eq!(harness.fail_batch("s1"), ["run s1: compensate 1"]);
    assert_eq!(harness.reply("s1", "y"), ["failed ann: Database"]);
    assert_eq!(harness.key_count(), 0);
}

#[test]
fn next_waiter_is_acquired_for_after_a_failure() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    harness.request("ben", 1, &forever());
    harness.fail_batch("s1");
    let commands = harness.reply("s1", "n");
    assert_eq!(commands, ["failed ann: Database", "run s1: acquire 1"]);
    assert_eq!(harness.reply("s1", "y"), ["granted ben"]);
}

#[test]
fn failed_batch_is_retried_one_by_one() {
    let mut harness = harness();
    harness.request("zoe", 9, &no_wait());
    for (who, key) in [("ann", 1), ("ben", 2), ("cy", 3)] {
        harness.request(who, key, &forever());
    }
    harness.reply("s1", "n");
    assert_eq!(
        harness.fail_batch("s1"),
        ["run s1: compensate 1, compensate 2, compensate 3"]
    );
    assert_eq!(harness.reply("s1", "yyn"), ["run s1: acquire 1"]);
    assert_eq!(
        harness.reply("s1", "y"),
        ["granted ann", "run s1: acquire 2"]
    );
    // Only `ben` causes the error.
    assert_eq!(harness.fail_batch("s1"), ["run s1: compensate 2"]);
    let commands = harness.reply("s1", "n");
    assert_eq!(commands, ["failed ben: Database", "run s1: acquire 3"]);
    // Later operations share a batch again.
    harness.request("dot", 4, &no_wait());
    harness.request("eve", 5, &no_wait());
    let answer = harness.reply("s1", "y");
    assert_eq!(answer, ["granted cy", "run s1: acquire 4, acquire 5"]);
}

#[test]
fn waiter_behind_a_failed_retry_shares_a_batch() {
    let mut harness = harness();
    harness.request("zoe", 9, &no_wait());
    for (who, key) in [("ann", 1), ("ben", 1), ("cy", 2)] {
        harness.request(who, key, &forever());
    }
    harness.reply("s1", "n");
    harness.fail_batch("s1");
    assert_eq!(harness.reply("s1", "yy"), ["run s1: acquire 1"]);
    harness.fail_batch("s1");
    harness.request("dot", 4, &no_wait());
    // `ben` did not cause the error.
    let commands = harness.reply("s1", "n");
    assert_eq!(commands, ["failed ann: Database", "run s1: acquire 2"]);
    let answer = harness.reply("s1", "y");
    assert_eq!(answer, ["granted cy", "run s1: acquire 4, acquire 1"]);
}

/// The reply shows that the key did not cause the error.
#[test]
fn contended_retry_shares_a_batch_again() {
    let mut harness = harness();
    harness.request("zoe", 9, &no_wait());
    for (who, key) in [("ann", 1), ("ben", 2)] {
        harness.request(who, key, &forever());
    }
    harness.reply("s1", "n");
    harness.fail_batch("s1");
    assert_eq!(harness.reply("s1", "nn"), ["run s1: acquire 1"]);
    assert_eq!(harness.reply("s1", "n"), ["run s1: acquire 2"]);
    assert_eq!(harness.reply("s1", "n"), NO_COMMANDS);
    // Both keys are polled.
    let polled = harness.advance(millis(100));
    assert_eq!(polled[0].matches("acquire").count(), 2, "{polled:?}");
}

#[test]
fn isolated_retry_keeps_order() {
    let mut harness = harness();
    for (who, key) in [("ann", 1), ("ben", 2)] {
        harness.request(who, key, &no_wait());
        harness.reply("s1", "y");
    }
    harness.advance(millis(5_000));
    harness.request("cy", 3, &forever());
    harness.request("dot", 4, &forever());
    harness.reply("s1", "");
    assert_eq!(
        harness.fail_batch("s1"),
        ["run s1: compensate 3, compensate 4"]
    );
    // Released during the compensation, so before the retries.
    harness.drop_guard("ann");
    harness.drop_guard("ben");
    let sent = harness.reply("s1", "nn");
    assert_eq!(sent, ["run s1: release 1, release 2"]);
    assert_eq!(harness.reply("s1", "yy"), ["run s1: acquire 3"]);
}

#[test]
fn reacquire_in_a_failed_batch_is_compensated_once() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    let block = forever().strategy(crate::options::WaitStrategy::Block);
    harness.request("ann", 1, &block);
    harness.request("ben", 1, &block);
    harness.reply("s1", "y");
    assert_eq!(harness.release("ann"), ["run s1: release 1, acquire 1"]);
    assert_eq!(harness.fail_batch("s1"), ["run s1: compensate 1"]);
    // The lock was held until then, because the session has replied.
    let commands = harness.reply("s1", "y");
    assert_eq!(commands, ["released ann", "failed ben: Database"]);
}

#[test]
fn lock_released_in_failed_batch_can_be_requested_again() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    harness.reply("s1", "y");
    harness.release("ann");
    harness.request("ben", 1, &no_wait());
    assert_eq!(harness.fail_batch("s1"), ["run s1: compensate 1"]);
    let commands = harness.reply("s1", "n");
    assert_eq!(commands, ["released ann", "run s1: acquire 1"]);
}

#[test]
fn failed_compensation_loses_the_session() {
    let mut harness = harness();
    harness.request("ann", 1, &no_wait());
    harness.fail_batch("s1");
    let lost = ["lost s1", "terminate s1", "failed ann: Database"];
    assert_eq!(harness.fail_batch("s1"), lost);
}

/// A client library that hides SQLSTATEs reports the end of a session like any other error.
#[test]
fn error_acks_no_release() {
    let mut harness = harness();
    harness.request("ann", 1, &forever().shared());
    harness.reply("s1", "y");
    harness.request("ben", 1, &forever().shared());
    harness.advance(millis(5_000));
    assert_eq!(harness.release("ann"), NO_COMMANDS);
    harness.request("cy", 2, &no_wait());
    assert_eq!(harness.reply("s1", ""), ["run s1: acquire 2"]);
    let undoes = harness.reply_with("s1", Err(SessionError::new("something")));
    assert_eq!(undoes, ["run s1: compensate 2"]);
    let commands = harness.reply_with("s1", Err(SessionError::new("something")));
    let lost = [
        "lost s1",
        "terminate s1",
        "released ann: Lost",
        "failed cy: Database",
    ];
    assert_eq!(commands, lost);
}

#[test]
fn reply_after_an_error_acks_the_release() {
    let mut harness = harness();
    for who in ["ann", "ben"] {
        harness.request(who, 1, &forever().shared());
    }
    harness.reply("s1", "y");
    harness.drop_guard("ben");
    harness.request("ben", 1, &forever().shared());
    harness.request("cy", 2, &no_wait());
    harness.release("ann");
    assert_eq!(harness.fail_batch("s1"), ["run s1: compensate 2"]);
    let commands = harness.reply("s1", "n");
    assert_eq!(commands, ["failed cy: Database", "run s1: ping"]);
    assert_eq!(harness.reply("s1", ""), ["released ann"]);
}

#[test]
fn token_comes_with_the_grant() {
    let mut harness = harness();
    assert_eq!(
        harness.request_with_token("ann", 1, &no_wait()),
        ["run s1: acquire with token 1"]
    );
    assert_eq!(harness.reply("s1", "y"), ["granted ann with 1"]);
}

#[test]
fn token_is_issued_per_holder() {
    let mut harness = harness();
    harness.request_with_token("ann", 1, &forever());
    harness.request_with_token("ben", 1, &forever());
    assert_eq!(harness.reply("s1", "y"), ["granted ann with 1"]);
    // The reply also acknowledges the release.
    assert_eq!(harness.release("ann"), ["run s1: issue token 1"]);
    assert_eq!(
        harness.reply("s1", "y"),
        ["released ann", "granted ben with 2"]
    );
}

#[test]
fn unneeded_token_is_dropped() {
    let mut harness = harness();
    harness.request_with_token("ann", 1, &forever());
    harness.request("ben", 1, &forever());
    harness.cancel("ann");
    assert_eq!(harness.reply("s1", "y"), ["granted ben"]);
    harness.request_with_token("cy", 1, &forever());
    harness.drop_guard("ben");
    harness.cancel("cy");
    assert_eq!(harness.reply("s1", "y"), ["run s1: release 1"]);
}

#[test]
fn shared_holders_have_distinct_tokens() {
    let mut harness = harness();
    harness.request_with_token("ann", 1, &forever().shared());
    harness.request_with_token("ben", 1, &forever().shared());
    let granted = harness.reply("s1", "y");
    assert_eq!(
        granted,
        ["granted ann with 1", "run s1: issue token shared 1"]
    );
    // The lock is held by `ann`, who may release it.
    assert_eq!(harness.drop_guard("ann"), NO_COMMANDS);
    assert_eq!(harness.reply("s1", "y"), ["granted ben with 2"]);
}

#[test]
fn no_wait_sharer_is_granted_after_token() {
    let mut harness = harness();
    harness.request("ann", 1, &forever().shared());
    harness.reply("s1", "y");
    harness.request_with_token("ben", 1, &forever().shared());
    assert_eq!(harness.request("cy", 1, &no_wait().shared()), NO_COMMANDS);
    assert_eq!(
        harness.reply("s1", "y"),
        ["granted ben with 1", "granted cy"]
    );
}

#[test]
fn failed_token_fails_the_first_waiter() {
    let mut harness = harness();
    harness.request("ann", 1, &forever().shared());
    harness.reply("s1", "y");
    harness.request_with_token("ben", 1, &forever().shared());
    harness.request("cy", 1, &forever().shared());
    // The batch acquired no lock, so the compensation only checks whether the session lives.
    assert_eq!(harness.fail_batch("s1"), ["run s1: ping"]);
    assert_eq!(
        harness.reply("s1", ""),
        ["failed ben: Database", "granted cy"]
    );
}

#[test]
fn failed_token_in_a_batch_is_retried_alone() {
    let mut harness = harness();
    harness.request("ann", 1, &forever().shared());
    harness.reply("s1", "y");
    harness.request("zoe", 9, &no_wait());
    harness.request_with_token("ben", 1, &forever().shared());
    harness.request("cy", 2, &no_wait());
    assert_eq!(
        harness.reply("s1", "n"),
        [
            "failed zoe: HeldElsewhere",
            "run s1: issue token shared 1, acquire 2"
        ]
    );
    assert_eq!(harness.fail_batch("s1"), ["run s1: compensate 2"]);
    assert_eq!(harness.reply("s1", "n"), ["run s1: issue token shared 1"]);
    assert_eq!(
        harness.reply("s1", "y"),
        ["granted ben with 1", "run s1: acquire 2"]
    );
}

#[test]
fn sequence_issues_a_number_per_operation() {
    let (mut harness, source) = with_sequence();
    harness.request_with_token("ann", 1, &forever());
    assert_eq!(harness.token_source_of("s1"), source);
    let reply = |number| BatchReply {
        answers: Some(vec![Some(number)]),
        token: Some(1),
        pid: 0,
        server_signs: ServerSigns::NONE,
    };
    let pid = harness.pid("s1");
    assert_eq!(
        harness.reply_with("s1", Ok(BatchReply { pid, ..reply(41) })),
        ["granted ann with 41"]
    );
    harness.request_with_token("ben", 1, &forever());
    harness.drop_guard("ann");
    assert_eq!(harness.token_source_of("s1"), source);
    assert_eq!(
        harness.reply_with("s1", Ok(BatchReply { pid, ..reply(42) })),
        ["granted ben with 42"]
    );
}

/// The sequence may not exist; then each batch that names it fails.
#[test]
fn sequence_is_named_only_for_tokens() {
    let (mut harness, _) = with_sequence();
    harness.request("ann", 1, &forever());
    assert_eq!(harness.token_source_of("s1"), TokenSource::TransactionId);
    harness.reply("s1", "y");
    harness.advance(millis(5_000));
    assert_eq!(harness.token_source_of("s1"), TokenSource::TransactionId);
}

/// The reply to one operation that wants a token of a sequence with a cache.
fn bad_sequence(harness: &CoreHarness) -> BatchReply {
    BatchReply {
        answers: Some(vec![None]),
        token: Some(0),
        pid: harness.pid("s1"),
        server_signs: ServerSigns::NONE,
    }
}

/// The statement failed because of a token that the new first waiter does not want.
#[test]
fn failed_token_spares_a_waiter_without_one() {
    let (mut harness, _) = with_sequence();
    harness.request_with_token("ann", 1, &forever());
    harness.request("ben", 1, &forever());
    harness.cancel("ann");
    let reply = bad_sequence(&harness);
    assert_eq!(harness.reply_with("s1", Ok(reply)), ["run s1: acquire 1"]);
    assert_eq!(harness.reply("s1", "y"), ["granted ben"]);
    // The same for an error of the statement.
    harness.request_with_token("cy", 2, &forever());
    harness.request("dot", 2, &forever());
    harness.cancel("cy");
    harness.fail_batch("s1");
    assert_eq!(harness.reply("s1", "n"), ["run s1: acquire 2"]);
    assert_eq!(harness.reply("s1", "y"), ["granted dot"]);
    // And for a lock that is handed off.
    harness.request_with_token("eve", 2, &forever());
    harness.request("fay", 2, &forever());
    assert_eq!(harness.drop_guard("dot"), ["run s1: issue token 2"]);
    harness.cancel("eve");
    harness.fail_batch("s1");
    assert_eq!(harness.reply("s1", ""), ["granted fay"]);
}

#[test]
fn bad_sequence_fails_each_fenced_request() {
    let (mut harness, _) = with_sequence();
    let bad_sequence = bad_sequence(&harness);
    harness.request_with_token("ann", 1, &forever());
    harness.request("ben", 1, &forever());
    harness.request_with_token("cy", 1, &forever());
    let commands = harness.reply_with("s1", Ok(bad_sequence.clone()));
    assert_eq!(
        commands,
        ["failed ann: InvalidOptions", "run s1: acquire 1"]
    );
    harness.reply("s1", "y");
    assert_eq!(harness.drop_guard("ben"), ["run s1: issue token 1"]);
    let commands = harness.reply_with("s1", Ok(bad_sequence));
    assert_eq!(commands, ["failed cy: InvalidOptions", "run s1: release 1"]);
}

#[test]
fn good_sequence_reports_contention() {
    let (mut harness, _) = with_sequence();
    harness.request_with_token("ann", 1, &no_wait());
    let contended = BatchReply {
        answers: Some(vec![None]),
        token: Some(1),
        pid: harness.pid("s1"),
        server_signs: ServerSigns::NONE,
    };
    assert_eq!(
        harness.reply_with("s1", Ok(contended)),
        ["failed ann: HeldElsewhere"]
    );
}

/// Other clients of the server fail as well while its lock table is full.
#[test]
fn full_lock_table_fails_every_acquire_on_its_way() {
    let mut options = LockManagerOptions::new();
    options.max_batch_len = 2;
    let mut harness = CoreHarness::opened(options);
    harness.request("zoe", 9, &no_wait());
    harness.reply("s1", "y");
    harness.request("yan", 8, &no_wait());
    for (who, key) in [("ann", 1), ("ben", 2), ("cy", 3), ("dot", 4)] {
        harness.request_of_several(who, key, &forever());
    }
    harness.request("eve", 1, &forever());
    harness.drop_guard("zoe");
    harness.reply("s1", "n");
    assert_eq!(
        harness.fail_batch_with("s1", "53200"),
        ["run s1: compensate 1, compensate 2"]
    );
    // One release is sent, and no acquire.
    assert_eq!(
        harness.reply("s1", "yn"),
        [
            "failed ann: TooManyLocks",
            "failed eve: TooManyLocks",
            "failed ben: TooManyLocks",
            "failed cy: TooManyLocks",
            "failed dot: TooManyLocks",
            "run s1: release 9",
        ]
    );
    harness.reply("s1", "y");
    assert_eq!(harness.key_count(), 0);
    harness.request("flo", 5, &no_wait());
    assert_eq!(harness.reply("s1", "y"), ["granted flo"]);
}

#[test]
fn full_lock_table_keeps_held_locks() {
    let mut harness = CoreHarness::opened(LockManagerOptions::new().hand_off_limit(1, millis(100)));
    let block = forever().strategy(crate::options::WaitStrategy::Block);
    harness.request("ann", 1, &forever().shared());
    harness.reply("s1", "y");
    harness.request("ben", 2, &block);
    harness.reply("s1", "y");
    harness.request("zoe", 9, &no_wait());
    harness.request("cy", 2, &block);
    harness.release("ben");
    assert_eq!(
        harness.reply("s1", "n"),
        ["failed zoe: HeldElsewhere", "run s1: release 2, acquire 2"]
    );
    assert_eq!(
        harness.fail_batch_with("s1", "53200"),
        ["run s1: compensate 2"]
    );
    let commands = harness.reply("s1", "y");
    assert_eq!(commands, ["released ben", "failed cy: TooManyLocks"]);
    assert_eq!(harness.release("ann"), ["run s1: release shared 1"]);
}

#[test]
fn timeout_or_deadlock_of_a_batch_is_a_database_error() {
    for code in ["55P03", "40P01"] {
        let mut harness = harness();
        harness.request("ann", 1, &forever());
        harness.fail_batch_with("s1", code);
        assert_eq!(harness.reply("s1", "n"), ["failed ann: Database"], "{code}");
    }
}

/// The error has no source, so its text is all that a caller learns.
#[test]
fn error_of_a_failed_batch_has_the_clients_text() {
    let mut harness = harness();
    harness.request("ann", 1, &forever());
    let (session, pid) = (SessionId(harness.generation("s1")), harness.pid("s1"));
    let (core, now) = (&mut harness.core, harness.now);
    core.on_batch_result(session, Err(SessionError::new("permission denied")), now);
    core.take_commands(Vec::new(), now);
    let reply = BatchReply {
        answers: Some(vec![None]),
        token: None,
        pid,
        server_signs: ServerSigns::NONE,
    };
    core.on_batch_result(session, Ok(reply), now);
    let commands = core.take_commands(Vec::new(), now);
    let failed = commands.iter().find_map(|command| match command {
        Command::Failed { error, .. } => Some(error.to_string()),
        _ => None,
    });
    let text = failed.expect("ann fails");
    assert!(text.contains("permission denied"), "{text}");
}
