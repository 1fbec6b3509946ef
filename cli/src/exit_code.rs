//! The exit codes, which `--help` and the manual page list.

use std::process::ExitCode;

/// Exit code of the program. The numbers from 64 to 78 are those of `sysexits.h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Code(pub(crate) u8);

impl Code {
    pub(crate) const SUCCESS: Self = Self(0);
    /// `doctor` found a fault.
    pub(crate) const FAULT: Self = Self(1);
    /// The arguments are wrong.
    pub(crate) const USAGE: Self = Self(64);
    /// There is no connection to the server.
    pub(crate) const UNAVAILABLE: Self = Self(69);
    /// The server's lock table is full.
    pub(crate) const FULL: Self = Self(71);
    /// The output could not be written, or the system refused a pipe, a handler or a process.
    pub(crate) const OUTPUT: Self = Self(74);
    /// Another session holds the lock.
    pub(crate) const CONFLICT: Self = Self(75);
    /// The server reported another error.
    pub(crate) const DATABASE: Self = Self(76);
    /// The server refused the password, the role or the permission.
    pub(crate) const REFUSED: Self = Self(77);
    /// The server cannot provide the lock.
    pub(crate) const UNFIT: Self = Self(78);
    /// The lock was lost.
    pub(crate) const LOST: Self = Self(79);
    /// The command is not executable.
    pub(crate) const NOT_EXECUTABLE: Self = Self(126);
    /// The command does not exist.
    pub(crate) const NOT_FOUND: Self = Self(127);
    /// The reader of the output has closed it, as after SIGPIPE.
    pub(crate) const BROKEN_PIPE: Self = Self(141);

    /// Returns the code of a process that a signal ended.
    pub(crate) fn of_signal(signal: i32) -> Self {
        Self(u8::try_from(128 + signal).unwrap_or(u8::MAX))
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        code.0.into()
    }
}

/// The list of exit codes in the help text.
pub(crate) const HELP: &str = "\
Exit codes:
  0        success; with --skip also: the lock is held elsewhere
  1        doctor: a check is \"bad\"
  64       the arguments are wrong
  69       no connection to the server
  71       the server's lock table is full
  74       the output could not be written, or the system refused a resource
  75       another session holds the lock (-E changes it)
  76       the server reported another error
  77       the server refused the password, the role or the permission
  78       the server cannot provide the lock: a standby, a transaction pooler,
           a server without lock functions
  79       the lock was lost while the command ran (--lost-exit-code changes it)
  126      the command is not executable
  127      the command does not exist
  128+n    signal n ended the command, or ended the wait for the lock
  141      the reader has closed the output
  others   run: the code of the command";
