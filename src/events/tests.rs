use std::time::Duration;

use super::millis;

#[test]
fn durations_are_logged_in_whole_milliseconds() {
    assert_eq!(millis(Duration::from_micros(2_999)), 2);
    assert_eq!(millis(Duration::MAX), u64::MAX);
}

#[cfg(feature = "lock-manager")]
#[test]
fn subscriber_of_debug_events_is_noticed() {
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
    let subscriber = subscriber.with_writer(std::io::sink).finish();
    tracing::subscriber::with_default(subscriber, || assert!(super::is_logged()));
}
