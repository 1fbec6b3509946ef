//! A counter in a file that rejects a write with an old fencing token.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Counter files, one per key. They do not prevent lost updates; only the lock does.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    directory: PathBuf,
}

#[derive(Clone, Copy, Debug, Default)]
struct Content {
    number: u64,
    token: u64,
}

impl Storage {
    pub(crate) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    fn path(&self, key: usize, ending: &str) -> PathBuf {
        self.directory.join(format!("counter-{key}{ending}"))
    }

    fn content(&self, key: usize) -> Content {
        let Ok(text) = fs::read_to_string(self.path(key, "")) else {
            return Content::default();
        };
        let (number, token) = text.split_once(' ').expect("two numbers");
        Content {
            number: number.parse().unwrap(),
            token: token.parse().unwrap(),
        }
    }

    pub(crate) fn read(&self, key: usize) -> u64 {
        self.content(key).number
    }

    /// Writes the number, unless the file has the same or a higher token.
    ///
    /// A `flock` makes the comparison and the write one atomic step. The system releases it when
    /// the process ends. The rename is atomic, too.
    pub(crate) fn write(&self, key: usize, number: u64, token: u64) -> bool {
        let guard = File::create(self.path(key, ".lock")).expect("a file can be made");
        flock(&guard, FlockOperation::LockExclusive).expect("a file can be locked");
        if self.content(key).token >= token {
            return false;
        }
        let new = self.path(key, ".new");
        fs::write(&new, format!("{number} {token}")).expect("a file can be written");
        fs::rename(&new, self.path(key, "")).expect("a file can be renamed");
        true
    }
}
