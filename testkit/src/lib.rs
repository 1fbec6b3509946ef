//! Kit of the tests and benches that use a PostgreSQL server. It is not published.
//!
//! * [`server`]: address of the test server, connections, names and keys of a test's own.
//! * [`observer`]: queries of `pg_locks` and `pg_stat_activity` on a plain connection.
//! * [`gate`]: a lock that a statement waits for until the test releases it.
//! * [`model`]: PostgreSQL's advisory locks in memory.
//! * [`pending`]: futures that are dropped at a pending point.
//! * [`proxy`]: a TCP proxy that counts, stalls, discards or cuts the traffic.
//! * [`fake_server`]: the test server behind rules that make it another one, such as CockroachDB.
//! * [`pooling_proxy`]: a transaction pooler that replays settings, or that pins lock holders.
//! * [`counts`]: an observer that counts the requests and holds of each key.
//! * [`cluster`]: a private server that a test may stop, crash or fill.
//! * [`temp`]: databases, roles and tables that are dropped with their value.
//! * [`timeouts`]: the server's settings that end statements, transactions or sessions.
//! * [`tls`]: TLS of a private server.
//!
//! Functions panic on failure, as tests do.

pub mod cluster;
pub mod counts;
pub mod fake_server;
pub mod gate;
pub mod model;
pub mod observer;
pub mod pending;
pub mod pooling_proxy;
pub mod proxy;
pub mod server;
pub mod temp;
pub mod timeouts;
pub mod tls;
mod wire;
