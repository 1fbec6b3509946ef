use tracing::Level;

use super::is_logged;

#[test]
fn subscriber_of_debug_events_is_noticed() {
    let subscriber = tracing_subscriber::fmt().with_max_level(Level::DEBUG);
    let subscriber = subscriber.with_writer(std::io::sink).finish();
    tracing::subscriber::with_default(subscriber, || assert!(is_logged()));
}
