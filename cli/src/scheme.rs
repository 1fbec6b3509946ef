//! Key schemes of the command line: the library's own, and those of `advisory_locking::schemes`.

use advisory_locking::{LockKey, schemes};
use clap::ValueEnum;

use crate::failure::Failure;

/// Derivation of a key from a name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Scheme {
    /// This library: name and parts
    #[default]
    Native,
    /// Python, Django: django-pglock
    DjangoPglock,
    /// Python, Django: django-pglocks
    DjangoPglocks,
    /// PHP: symfony/lock; Python: zlib.crc32
    Crc32,
    /// Python: sqlalchemy-dlock
    SqlalchemyDlock,
    /// Python: PALs; --prefix is the application
    Pals,
    /// SHA-256 of name and parts, joined with "-"
    Sha256BeJoined,
    /// Python: struct.unpack('q', sha1(...))
    Sha1Le,
    /// Ruby: good_job; Python: PostgresAdvisoryLock; Julia: PormG
    Md5Be,
    /// Ruby: with_advisory_lock; --prefix is optional
    WithAdvisoryLock,
    /// Ruby: with_advisory_lock with an integer; --prefix is optional
    WithAdvisoryLockNumber,
    /// .NET: DistributedLock, hashed if necessary
    DistributedLock,
    /// .NET: DistributedLock, without hashing
    DistributedLockUnhashed,
    /// Node.js: advisory-lock
    NpmAdvisoryLock,
    /// Rust: sqlx's PgAdvisoryLock
    Sqlx,
    /// SQL: hashtext('...')
    Hashtext,
    /// SQL: hashtext('...'), hashtext('...'); the second is --part
    HashtextPair,
    /// SQL: hashtextextended('...', 0)
    Hashtextextended,
    /// Migrations of Rails; the name is the database
    RailsMigrations,
    /// Migrations of sqlx; the name is the database
    SqlxMigrations,
    /// Migrations of golang-migrate: the name is the database; parts are schema and table
    GolangMigrate,
    /// Migrations of goose; the name is ignored
    GooseMigrations,
    /// Migrations of Prisma; the name is ignored
    PrismaMigrations,
}

impl Scheme {
    /// Returns `true` if parts are significant.
    fn has_parts(self) -> bool {
        matches!(
            self,
            Self::Native | Self::Sha256BeJoined | Self::HashtextPair | Self::GolangMigrate
        )
    }

    fn has_prefix(self) -> bool {
        matches!(
            self,
            Self::Pals | Self::WithAdvisoryLock | Self::WithAdvisoryLockNumber
        )
    }

    /// Returns the name on the command line.
    pub(crate) fn label(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Derives the key of a name.
    pub(crate) fn derive(
        self,
        name: &str,
        parts: &[String],
        prefix: Option<&str>,
    ) -> Result<LockKey, Failure> {
        if !parts.is_empty() && !self.has_parts() {
            return Err(self.unused("--part"));
        }
        if prefix.is_some() && !self.has_prefix() {
            return Err(self.unused("--prefix"));
        }
        let all = || std::iter::once(name).chain(parts.iter().map(String::as_str));
        Ok(match self {
            Self::Native => LockKey::from_parts(all()),
            Self::DjangoPglock => schemes::django_pglock(name)?,
            Self::DjangoPglocks => schemes::django_pglocks(name),
            Self::Crc32 => schemes::crc32(name),
            Self::SqlalchemyDlock => schemes::sqlalchemy_dlock(name),
            Self::Pals => schemes::pals(prefix, name),
            Self::Sha256BeJoined => schemes::sha256_be_joined(all()),
            Self::Sha1Le => schemes::sha1_le(name),
            Self::Md5Be => schemes::md5_be(name)?,
            Self::WithAdvisoryLock => schemes::with_advisory_lock(name, prefix),
            Self::WithAdvisoryLockNumber => {
                let number = name
                    .parse()
                    .map_err(|_| Failure::usage("the name of this scheme is a 64-bit integer"))?;
                schemes::with_advisory_lock_number(number, prefix)
            }
            Self::DistributedLock => schemes::distributed_lock(name),
            Self::DistributedLockUnhashed => schemes::distributed_lock_unhashed(name)?,
            Self::NpmAdvisoryLock => schemes::npm_advisory_lock(name),
            Self::Sqlx => schemes::sqlx(name),
            Self::Hashtext => schemes::hashtext(name)?,
            Self::HashtextPair => match parts {
                [second] => schemes::hashtext_pair(name, second)?,
                _ => return Err(Failure::usage("hashtext-pair needs one --part")),
            },
            Self::Hashtextextended => schemes::hashtextextended(name, 0)?,
            Self::RailsMigrations => schemes::rails_migrations(name),
            Self::SqlxMigrations => schemes::sqlx_migrations(name),
            Self::GolangMigrate => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                schemes::golang_migrate(name, &parts)
            }
            Self::GooseMigrations => schemes::goose_migrations(),
            Self::PrismaMigrations => schemes::prisma_migrations(),
        })
    }

    fn unused(self, option: &str) -> Failure {
        Failure::usage(format_args!("the scheme {} has no {option}", self.label()))
    }
}
