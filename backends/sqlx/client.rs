//! Parts of the adapter that SeaORM's adapter uses, too.

pub(crate) use super::error::{code, is_disconnected, stalled_error};
pub(crate) use super::stall::stalled;
pub(crate) use super::statements::{drain, fetch_unprepared, run_statement, send};
pub(crate) use super::terminate::{spawn as start_terminate_waiting, until};
pub(crate) use super::values::decode_row;
