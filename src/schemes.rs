//! The keys that other systems derive from a name, for a program beside them.
//!
//! A lock excludes only those who ask for the same integers. A Django, Rails, .NET, Node, Go or Julia service derives them from
//! a name in a way of its own. Each function here derives them in one of those ways, exactly: encoding, joins, byte order, sign and key
//! space.
//!
//! ```
//! # #[cfg(feature = "diesel-sqlite")] {
//! use advisory_locking::{AdvisoryLocking, LockOptions, schemes};
//! use diesel::prelude::*;
//!
//! /// `with pglock.advisory("nightly-report"):` in the Django service keeps this out, and this keeps that out.
//! fn report(conn: &mut SqliteConnection) -> QueryResult<()> {
//!     let key = schemes::django_pglock("nightly-report")?;
//!     conn.with_advisory_lock(key, LockOptions::no_wait(), |conn| {
//!         diesel::sql_query("SELECT 1").execute(conn)?;
//!         Ok(())
//!     })
//! }
//! # report(&mut SqliteConnection::establish(":memory:").unwrap()).unwrap();
//! # }
//! ```
//!
//! # Which to take
//!
//! Nobody else asks for the lock: none of these. A plain [`LockKey`] of a text has 64 bits, and parts that do not run together.
//!
//! Another program asks for it:
//!
//! | the other program | takes its locks through | here |
//! |---|---|---|
//! | Python, Django | django-pglock | [`django_pglock`] |
//! | | django-pglocks (with an s) | [`django_pglocks`] |
//! | | `zlib.crc32` in a function of its own | [`crc32`](crc32()) |
//! | Python, SQLAlchemy | sqlalchemy-dlock | [`sqlalchemy_dlock`] |
//! | | PALs | [`pals`] |
//! | | `sha256` of parts joined with `-` | [`sha256_be_joined`] |
//! | Python, psycopg | `struct.unpack('q', sha1(…))` | [`sha1_le`] |
//! | Python, asyncpg | n0mn0m's PostgresAdvisoryLock | [`md5_be`] |
//! | Ruby | with_advisory_lock | [`with_advisory_lock`], [`with_advisory_lock_number`] |
//! | | good_job | [`md5_be`] |
//! | Julia | PormG | [`md5_be`] |
//! | PHP | symfony/lock | [`crc32`](crc32()) |
//! | | mpyw/laravel-database-advisory-lock | [`hashtext`](hashtext()) |
//! | .NET | DistributedLock | [`distributed_lock`], [`distributed_lock_unhashed`] |
//! | Node.js | advisory-lock | [`npm_advisory_lock`] |
//! | Rust | sqlx's `PgAdvisoryLock` | [`sqlx`](sqlx()) |
//! | SQL, in any language | `pg_advisory_lock(hashtext(…))` | [`hashtext`](hashtext()), [`hashtext_pair`], [`hashtextextended`] |
//! | any | integers | [`LockKey::from`] an `i64` or an `(i32, i32)` |
//! | a migration of | Rails, sqlx, golang-migrate, goose, Prisma | [`rails_migrations`], [`sqlx_migrations`], [`golang_migrate`], [`goose_migrations`], [`prisma_migrations`] |
//!
//! You write the other program too, and it has no such library yet: derive the plain key there, as [`LockKey`] says. It needs
//! nothing but BLAKE3.
//!
//! # What is the same lock
//!
//! * [`sha1_le`], [`pals`] without an application, and [`distributed_lock`] for the names that it hashes.
//! * [`crc32`](crc32()) and [`django_pglocks`], for the half of the names whose sum is below 2³¹.
//! * Nothing else, however alike: [`django_pglock`] and [`sha256_be_joined`] read the same eight bytes in opposite orders;
//!   [`npm_advisory_lock`] reads those of the former as a pair, and pairs and single numbers never meet.
//!
//! No scheme trims, folds or normalises: a trailing space counts, and the composed and the decomposed `é` differ.
//!
//! The other program's *kind* of lock does not matter: session-level and transaction-level, exclusive locks exclude each other, whoever takes
//! them. The database does: all must be connected to the same one.
//!
//! # To see that it is the same
//!
//! While the other program holds its lock, ask the server: `SELECT classid, objid, objsubid FROM pg_locks WHERE locktype = 'advisory'`. The row
//! is what [`pg_locks_columns`](RawLockKey::pg_locks_columns) says of the key here, and the `Display` of a [`LockKey`]:
//!
//! ```
//! use advisory_locking::schemes;
//!
//! let key = schemes::django_pglock("PR-1234")?;
//! assert_eq!(key.raw().pg_locks_columns(), (3_581_343_668, 87_492_363, 1));
//! # Ok::<(), advisory_locking::LockError>(())
//! ```
//!
//! # Collisions
//!
//! Two names with one key wait for each other without need; code that takes both, one inside the other, on two connections, waits for
//! itself. All single numbers share one space in a database, so the keys of one scheme also collide with those of another.
//! The birthday bound, for names that are hashed evenly:
//!
//! | keys | names at which some two collide: 1 in a million | 1 in 100 | 1 in 2 |
//! |---|---|---|---|
//! | 2³¹: [`with_advisory_lock`] | 66 | 6,570 | 54,562 |
//! | 2³²: [`crc32`](crc32()), [`django_pglocks`], [`hashtext`](hashtext()), migrations | 93 | 9,291 | 77,163 |
//! | 2⁶⁴: the others | 6.1 million | 609 million | 5 billion |
//!
//! # Invalid names
//!
//! A name that the other system refuses is an error of the kind [`InvalidKey`](LockErrorKind::InvalidKey) here: nobody there could hold that lock.
//! Where it accepts every text, so does the function.

mod blake2b;
mod crc32;
mod dotnet;
mod hashtext;
mod lookup3;
mod md5;
mod migrations;
mod ruby;
mod sha1;
mod sha256;
mod sqlx;

pub use blake2b::sqlalchemy_dlock;
pub use crc32::{crc32, django_pglocks};
pub use dotnet::{distributed_lock, distributed_lock_unhashed};
pub use hashtext::{hashtext, hashtext_pair, hashtextextended};
pub use md5::md5_be;
pub use migrations::{
    golang_migrate, goose_migrations, prisma_migrations, rails_migrations, sqlx_migrations,
};
pub use ruby::{with_advisory_lock, with_advisory_lock_number};
pub use sha1::{pals, sha1_le};
pub use sha256::{django_pglock, npm_advisory_lock, sha256_be_joined};
pub use sqlx::sqlx;

use crate::key::{LockKey, RawLockKey};
use crate::{LockError, LockErrorKind};

fn single(number: i64, text: &str) -> LockKey {
    LockKey::from_raw_with_text(RawLockKey::Single(number), text.as_bytes())
}

fn pair(first: i32, second: i32, text: &str) -> LockKey {
    LockKey::from_raw_with_text(RawLockKey::Pair(first, second), text.as_bytes())
}

fn invalid(because: &'static str) -> LockError {
    LockError::new(LockErrorKind::InvalidKey).with_context(because)
}

/// The bytes that a server with UTF-8 hashes, if the text can be sent there.
fn server_text(text: &str) -> Result<&[u8], LockError> {
    if text.contains('\0') {
        return Err(invalid("PostgreSQL refuses text with NUL"));
    }
    Ok(text.as_bytes())
}
