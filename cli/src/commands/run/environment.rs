//! Environment variables of the command.

use std::env;

use advisory_locking::{LockKey, LockMode};

use super::Grant;
use crate::failure::Failure;
use crate::lock_name::numbers;
use crate::output::json;

/// Environment variable with the locks of the surrounding `run` commands.
const HELD: &str = "ADVISORY_LOCK_HELD";

/// Fails if a surrounding `run` holds the lock, for which this one would wait for ever. Returns the
/// value of [`HELD`] for the command.
pub(in crate::commands) fn held_with(
    key: &LockKey,
    mode: LockMode,
    name: &str,
) -> Result<String, Failure> {
    let entry = format!("{}/{}", numbers(key.raw()), json::mode(mode));
    let held = env::var(HELD).unwrap_or_default();
    let conflicts = held.split_whitespace().any(|held| {
        let (held_key, held_mode) = held.split_once('/').unwrap_or((held, ""));
        held_key == numbers(key.raw()) && !(mode == LockMode::Shared && held_mode == "shared")
    });
    if conflicts {
        let text = format!(
            "this command was started under the lock {name:?} and would wait for itself; unset \
             {HELD} if that lock is in another database, or was released since"
        );
        return Err(Failure::usage(text));
    }
    Ok(format!("{held} {entry}").trim().to_owned())
}

/// Returns the environment variables of the command. `None`: the command does not have it.
pub(super) fn variables(
    name: &str,
    key: &LockKey,
    mode: LockMode,
    grant: Grant,
    held: String,
) -> Vec<(&'static str, Option<String>)> {
    let token = grant.token.map(|token| token.to_string());
    vec![
        ("ADVISORY_LOCK_NAME", Some(name.to_owned())),
        ("ADVISORY_LOCK_KEY", Some(numbers(key.raw()))),
        ("ADVISORY_LOCK_MODE", Some(json::mode(mode).to_owned())),
        ("ADVISORY_LOCK_PID", Some(grant.session.to_string())),
        // Without a token, that of a surrounding `run` must not look like one of this lock.
        ("ADVISORY_LOCK_TOKEN", token),
        (HELD, Some(held)),
    ]
}
