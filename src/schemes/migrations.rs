//! The locks that migration tools take, so that a program keeps out of their way, or they out of
//! its.

use super::{crc32, single};
use crate::LockKey;

/// A CRC-32 times a constant below 2³¹, which is below 2⁶³.
fn salted(salt: u32, database: &str) -> LockKey {
    single(
        i64::from(salt) * i64::from(crc32::checksum(database)),
        database,
    )
}

/// The key of golang-migrate on PostgreSQL, from the database's name and further names.
///
/// Source: `GenerateAdvisoryLockId` of golang-migrate 4 (commit 18966c7). Its PostgreSQL drivers
/// add the schema and the name of the migrations' table to the database's name:
/// `["public", "schema_migrations"]` by default.
///
/// **Dangerous:** [32 bits collide](super#collisions), and the constant it multiplies with does not
/// help. Old releases lock another key: the schema counts since 2018, the table since 2021.
///
/// # Shape and units
///
/// One `i64` from 0 to 2³² − 1; 2³² keys.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// let key = schemes::golang_migrate("postgres", &["public", "schema_migrations"]);
/// assert_eq!(key, LockKey::from(143_310_882));
/// ```
#[must_use]
pub fn golang_migrate(database: &str, additional: &[&str]) -> LockKey {
    // The constant `advisoryLockIDSalt` of golang-migrate.
    const SALT: u32 = 1_486_364_155;
    let mut names = additional.to_vec();
    names.push(database);
    let text = names.join("\0");
    single(i64::from(crc32::checksum(&text).wrapping_mul(SALT)), &text)
}

/// The key that goose locks by default on PostgreSQL.
///
/// Source: `DefaultLockID` of goose 3 (commit 520411a); it is the CRC-32 of `goose`.
///
/// **Dangerous:** the same for every table of migrations, so two services in one database wait for
/// each other.
///
/// # Shape and units
///
/// One `i64`, always 4097083626.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::goose_migrations(), LockKey::from(4_097_083_626));
/// ```
#[must_use]
pub fn goose_migrations() -> LockKey {
    LockKey::from(4_097_083_626)
}

/// The key of Prisma Migrate on PostgreSQL.
///
/// Source: the schema engine of Prisma (commit 0425119), which has the number in its source.
///
/// **Dangerous:** the same for every schema, so two services in one database wait for each other.
///
/// # Shape and units
///
/// One `i64`, always 72707369.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::prisma_migrations(), LockKey::from(72_707_369));
/// ```
#[must_use]
pub fn prisma_migrations() -> LockKey {
    LockKey::from(72_707_369)
}

/// The lock of Active Record's migrations (Rails) on PostgreSQL, given what `current_database()`
/// is.
///
/// Source: `Migrator` of Active Record 6.1; the constant is the same in later releases.
///
/// **Dangerous:** [32 bits collide](super#collisions), and the constant it multiplies with does not
/// help. The same for every schema of the database.
///
/// # Shape and units
///
/// One `i64`, never negative; 2³² keys.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::rails_migrations("PR-1234"), LockKey::from(4_273_223_060_142_772_995));
/// ```
#[doc(alias = "ActiveRecord")]
#[must_use]
pub fn rails_migrations(database: &str) -> LockKey {
    salted(2_053_462_845, database)
}

/// The key of sqlx's migrations on PostgreSQL, from `current_database()`.
///
/// Source: `generate_lock_id` of sqlx 0.8.6 and 0.9.0.
///
/// **Dangerous:** [32 bits collide](super#collisions), and the constant it multiplies with does not
/// help. The same for every schema of the database.
///
/// # Shape and units
///
/// One `i64`, never negative; 2³² keys.
///
/// # Examples
///
/// ```
/// use advisory_locking::{LockKey, schemes};
///
/// assert_eq!(schemes::sqlx_migrations("PR-1234"), LockKey::from(2_136_611_529_030_894_562));
/// ```
#[must_use]
pub fn sqlx_migrations(database: &str) -> LockKey {
    salted(0x3d32_ad9e, database)
}
