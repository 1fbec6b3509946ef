//! Lock keys as other libraries derive them from a name.
//!
//! Two programs exclude each other only if both lock the same integers. A Django, Rails, .NET,
//! Node, Go or Julia service derives them from a name in a way of its own. Each function here
//! reproduces one of those derivations exactly: encoding, joins, byte order, sign and key space.
//!
//! ```
//! # #[cfg(feature = "diesel-sqlite")] {
//! use advisory_locking::{AdvisoryLocking, LockOptions, schemes};
//! use diesel::prelude::*;
//!
//! /// Excludes `with pglock.advisory("nightly-report"):` of the Django service.
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
//! # Choosing a scheme
//!
//! If no other program acquires the lock, use a plain [`LockKey`]: it has 64 bits, and its parts do
//! not run together.
//!
//! If another program acquires the lock:
//!
//! | the other program | uses | function |
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
//! If you also write the other program, derive the plain key there as [`LockKey`] describes. It
//! needs only BLAKE3.
//!
//! # Schemes with common keys
//!
//! * [`sha1_le`], [`pals`] without an application, and [`distributed_lock`] for the names that it
//!   hashes.
//! * [`distributed_lock`] and [`distributed_lock_unhashed`], for the names that the latter accepts.
//! * [`crc32`](crc32()) and [`django_pglocks`], for the half of the names whose sum is below 2³¹.
//! * [`goose_migrations`] and [`crc32`](crc32()) of `goose`.
//! * No other two schemes agree, however similar they look: [`django_pglock`] and
//!   [`sha256_be_joined`] read the same eight bytes in opposite orders; [`npm_advisory_lock`] reads
//!   the bytes of the former as a pair, and a pair never conflicts with a single number.
//!
//! No scheme trims, folds or normalises: a trailing space counts, and the composed and the
//! decomposed `é` differ.
//!
//! Session-level and transaction-level locks exclude each other, whichever program holds them. Both
//! programs must be connected to the same database.
//!
//! # Verifying a key
//!
//! While the other program holds its lock, query [`pg_locks`]:
//! `SELECT classid, objid, objsubid FROM pg_locks WHERE locktype = 'advisory'`. The row equals
//! [`pg_locks`](LockKey::pg_locks()) of the key:
//!
//! [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
//!
//! ```
//! use advisory_locking::schemes;
//!
//! let key = schemes::django_pglock("PR-1234")?;
//! let columns = key.pg_locks();
//! assert_eq!((columns.classid, columns.objid), (3_581_343_668, 87_492_363));
//! # Ok::<(), advisory_locking::LockError>(())
//! ```
//!
//! # Collisions
//!
//! Two names with one key block each other needlessly. Code that acquires both on two connections,
//! one inside the other, blocks itself. All single numbers share one key space in a database, so
//! keys of different schemes collide too. The birthday bound, for evenly hashed names:
//!
//! | keys | names at which the probability of a collision is 1 in a million | 1 in 100 | 1 in 2 |
//! |---|---|---|---|
//! | 2³¹: [`with_advisory_lock`] | 66 | 6,570 | 54,562 |
//! | 2³²: [`crc32`](crc32()), [`django_pglocks`], [`hashtext`](hashtext()), migrations | 93 | 9,291 | 77,163 |
//! | 2⁶⁴: the others | 6.1 million | 609 million | 5 billion |
//!
//! # Invalid names
//!
//! A name that the other system rejects is an error of the kind
//! [`InvalidKey`](LockErrorKind::InvalidKey) here, because no client of that system could hold the
//! lock. If the other system accepts every text, the function does too.

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
