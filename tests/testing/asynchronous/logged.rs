//! What is logged.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use advisory_locking::{AsyncAdvisoryLocking, AsyncLockSession};

use super::connect;
use crate::QUIET;

/// A transaction-level lock in the caller's transaction has no guard that would tell of the grant.
#[tokio::test]
async fn granting_in_the_callers_transaction_is_logged() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer({
            let lines = Arc::clone(&lines);
            move || Lines(Arc::clone(&lines))
        })
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let mut conn = connect().await;
    AsyncLockSession::begin(&mut conn).await.unwrap();
    conn.acquire_advisory_xact_lock("logged", QUIET)
        .await
        .unwrap();
    assert!(
        conn.try_acquire_advisory_xact_lock("logged", QUIET)
            .await
            .unwrap()
    );
    AsyncLockSession::commit(&mut conn).await.unwrap();
    let lines = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
    assert_eq!(lines.matches("is granted").count(), 2, "{lines}");
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
