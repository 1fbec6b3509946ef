//! A key as the view `pg_locks` shows it.

use super::{LockKey, RawLockKey};

/// Columns of the view [`pg_locks`] that identify a lock in its database.
///
/// A single number shows as its high and low 32 bits, with `objsubid` 1. A pair shows as its two
/// numbers, with `objsubid` 2. All are unsigned.
///
/// [`pg_locks`]: https://www.postgresql.org/docs/current/view-pg-locks.html
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PgLocksColumns {
    /// The column `classid`.
    pub classid: u32,
    /// The column `objid`.
    pub objid: u32,
    /// The column `objsubid`: the key space.
    pub objsubid: u16,
}

impl PgLocksColumns {
    /// Returns an SQL condition on the rows of `pg_locks` for this lock in the current database.
    ///
    /// The rows are those of its holders (`granted`) and of the sessions in the server's queue. A
    /// polling session has no row. The condition reads no other table, so it also works while the
    /// server's lock table is full.
    ///
    /// # Examples
    ///
    /// ```
    /// use advisory_locking::LockKey;
    ///
    /// let condition = LockKey::from((1, 2)).pg_locks().sql_condition();
    /// let holders = format!("SELECT pid FROM pg_locks WHERE {condition} AND granted");
    /// assert!(holders.contains("classid = 1 AND objid = 2 AND objsubid = 2"));
    /// ```
    #[must_use]
    pub fn sql_condition(&self) -> String {
        let Self {
            classid,
            objid,
            objsubid,
        } = self;
        format!(
            "locktype = 'advisory' AND database = (SELECT datid FROM \
             pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())) \
             AND classid = {classid} AND objid = {objid} AND objsubid = {objsubid}"
        )
    }
}

impl RawLockKey {
    /// Returns the columns of the lock in the view `pg_locks`.
    ///
    /// # Examples
    ///
    /// ```
    /// use advisory_locking::RawLockKey;
    ///
    /// let columns = RawLockKey::Single(-5).pg_locks();
    /// assert_eq!((columns.classid, columns.objid), (4_294_967_295, 4_294_967_291));
    /// assert_eq!(columns.objsubid, 1);
    /// ```
    #[must_use]
    pub const fn pg_locks(self) -> PgLocksColumns {
        match self {
            Self::Single(number) => {
                let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
                PgLocksColumns {
                    classid: u32::from_be_bytes([a, b, c, d]),
                    objid: u32::from_be_bytes([e, f, g, h]),
                    objsubid: 1,
                }
            }
            Self::Pair(first, second) => PgLocksColumns {
                classid: u32::from_ne_bytes(first.to_ne_bytes()),
                objid: u32::from_ne_bytes(second.to_ne_bytes()),
                objsubid: 2,
            },
        }
    }

    /// Returns the key with these columns. `None` if `objsubid` is neither 1 nor 2.
    pub(crate) fn from_pg_locks(classid: u32, objid: u32, objsubid: u16) -> Option<Self> {
        let signed = |number: u32| i32::from_ne_bytes(number.to_ne_bytes());
        match objsubid {
            1 => {
                let number = u64::from(classid) << 32 | u64::from(objid);
                Some(Self::Single(i64::from_ne_bytes(number.to_ne_bytes())))
            }
            2 => Some(Self::Pair(signed(classid), signed(objid))),
            _ => None,
        }
    }
}

impl LockKey {
    /// Returns the columns of the lock in the view `pg_locks`, for queries about its holders.
    ///
    /// # Examples
    ///
    /// See [`PgLocksColumns::sql_condition`].
    #[must_use]
    pub const fn pg_locks(&self) -> PgLocksColumns {
        self.raw.pg_locks()
    }
}
