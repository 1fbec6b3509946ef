//! Comparison of the transition table with the code.

use super::*;

const SESSION: SessionId = SessionId(1);
const MODE: LockMode = LockMode::Shared;

fn phases() -> Vec<KeyPhase> {
    let (session, mode) = (SESSION, MODE);
    vec![
        KeyPhase::NotHeld,
        KeyPhase::Acquiring { session },
        KeyPhase::WaitingOnServer { session, mode },
        KeyPhase::Held { session, mode },
        KeyPhase::Held {
            session: SessionId::IN_PROCESS,
            mode,
        },
        KeyPhase::IssuingToken { session, mode },
        KeyPhase::Releasing {
            session,
            reacquire: false,
        },
        KeyPhase::Releasing {
            session,
            reacquire: true,
        },
    ]
}

fn events() -> Vec<KeyEvent> {
    let (session, mode) = (SESSION, MODE);
    vec![
        KeyEvent::AcquireSent { session },
        KeyEvent::Granted { session, mode },
        KeyEvent::NotGranted,
        KeyEvent::WaitStarted { session, mode },
        KeyEvent::TokenRequested,
        KeyEvent::TokenIssued,
        KeyEvent::ReleaseSent { reacquire: false },
        KeyEvent::ReleaseSent { reacquire: true },
        KeyEvent::Released,
        KeyEvent::SessionLost,
    ]
}

/// Name of a variant, from its debug text.
fn name(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

/// Next phase according to the table, which is read from this file.
fn documented(phase: KeyPhase, event: KeyEvent) -> String {
    let table = include_str!("../key_state.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! | "));
    for row in table {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let in_process = phase.session() == Some(SessionId::IN_PROCESS);
        let from = match cells[0] {
            "every phase with a session" => phase.session().is_some(),
            "`Held` in the process" => in_process,
            cell => cell == format!("`{}`", name(&phase)),
        };
        if from && cells[1] == format!("`{}`", name(&event)) {
            let reacquire = matches!(
                phase,
                KeyPhase::Releasing {
                    reacquire: true,
                    ..
                }
            );
            let place = if reacquire { 3 } else { 1 };
            let next = cells[2].split('`').nth(place);
            return next.or(cells[2].split('`').nth(1)).unwrap().to_owned();
        }
    }
    name(&phase)
}

#[test]
fn transition_table_matches_the_code() {
    for phase in phases() {
        for event in events() {
            let mut key_state = KeyState::<()> {
                phase,
                ..KeyState::new(LockKey::from(1))
            };
            key_state.apply(event);
            let next = name(&key_state.phase());
            assert_eq!(next, documented(phase, event), "{phase:?}, {event:?}");
        }
    }
}
