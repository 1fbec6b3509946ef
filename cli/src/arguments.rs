//! Command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use advisory_locking::{LockMode, LockOptions, WaitStrategy};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::duration;
use crate::exit_code;
use crate::lock_name::LockName;

const EXAMPLES: &str = "\
Examples:
  advisory-lock run nightly-report --skip -- ./report.sh
  advisory-lock run import -w 5m -- ./import --all
  advisory-lock who nightly-report
  advisory-lock kill --pid 4711
  advisory-lock key nightly-report --all";

/// PostgreSQL advisory locks: run a command under a lock, see who holds one, end a holder
#[derive(Debug, Parser)]
#[command(name = "advisory-lock", version, before_long_help = EXAMPLES)]
#[command(after_long_help = exit_code::HELP, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Arguments of all commands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// URL or keywords of libpq. Default: DATABASE_URL, else PGHOST, PGUSER, PGSERVICE ...
    #[arg(
        short = 'd',
        long,
        global = true,
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub(crate) database_url: Option<String>,
    /// Print JSON. Keys are strings, durations are seconds
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// No messages on standard error, except errors
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command while the lock is held
    ///
    /// The command inherits the connection of the lock. So the lock is held until all processes
    /// that inherited the connection have ended or closed it, even if advisory-lock is killed.
    #[command(after_long_help = exit_code::HELP)]
    Run(Box<Run>),
    /// Exit with 0 if the lock is free, with 75 if it is held
    // It makes one attempt, on which the two options have no effect.
    #[command(mut_arg("block", |block| block.hide(true)))]
    #[command(mut_arg("poll_interval", |interval| interval.hide(true)))]
    Try(Try),
    /// Wait until the lock is free. It is not held afterwards
    Wait(Wait),
    /// List the advisory locks of the database, at most 1,000 holders and waiters
    Ls(Ls),
    /// Show the sessions that hold a lock or wait for it
    Who(LockName),
    /// End the sessions that hold a lock
    #[command(mut_arg("name", |name| name.required_unless_present("pid")))]
    Kill(Kill),
    /// Print the key of a name. Needs no server
    #[command(mut_arg("scheme", |scheme| scheme.hide_possible_values(false)))]
    Key(Key),
    /// Check whether the server and the connection are fit for locks
    Doctor(Doctor),
    /// Redraw the list of locks
    Watch(Watch),
    /// Print a completion script
    Completions {
        /// Shell of the script
        shell: Shell,
    },
    /// Print the manual page
    Man {
        /// Write the pages of all commands into this directory
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

/// Mode of the lock, and time to wait for it.
#[derive(Args, Clone, Debug)]
pub(crate) struct Acquire {
    /// Shared mode: holders in shared mode do not exclude each other
    #[arg(short, long)]
    pub(crate) shared: bool,
    /// Exclusive mode, the default
    #[arg(short = 'x', long, conflicts_with = "shared")]
    exclusive: bool,
    /// Wait in the server's queue, in order of arrival. A waiter keeps a snapshot
    #[arg(long)]
    block: bool,
    /// Longest pause between two attempts
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_pause, default_value = "100ms", conflicts_with = "block")]
    poll_interval: Duration,
    /// Accept a hot standby, whose locks are not those of its primary
    #[arg(long)]
    allow_standby: bool,
    /// Do not check for a transaction pooler, which needs a second connection
    #[arg(long)]
    pub(crate) no_pooler_check: bool,
}

impl Acquire {
    pub(crate) fn mode(&self) -> LockMode {
        if self.shared {
            LockMode::Shared
        } else {
            LockMode::Exclusive
        }
    }

    /// Returns `true` if a call with this limit waits in the server's queue. One attempt does not.
    pub(crate) fn blocks(&self, limit: Option<Duration>) -> bool {
        self.block && limit != Some(Duration::ZERO)
    }

    /// Returns the options of the library. Without a limit the call waits.
    pub(crate) fn options(&self, limit: Option<Duration>) -> LockOptions {
        let options = match limit {
            None => LockOptions::wait_forever(),
            Some(Duration::ZERO) => LockOptions::no_wait(),
            Some(limit) => LockOptions::wait_up_to(limit),
        };
        let options = options.mode(self.mode()).report_holders(true);
        let options = if limit == Some(Duration::ZERO) {
            // One attempt has neither a strategy nor an interval.
            options
        } else if self.block {
            options.strategy(WaitStrategy::Block)
        } else {
            options.interval(self.poll_interval)
        };
        if self.allow_standby {
            options.allow_standby()
        } else {
            options
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) lock: LockName,
    #[command(flatten)]
    pub(crate) acquire: Acquire,
    /// Do not wait
    #[arg(short, long, conflicts_with = "wait")]
    no_wait: bool,
    /// Longest wait, such as 30s or 5m. Default: no limit
    #[arg(short, long, value_name = "DURATION", value_parser = duration::parse)]
    wait: Option<Duration>,
    /// If the lock is held, exit with 0. Does not wait, unless -w is set
    #[arg(long, conflicts_with = "conflict_exit_code")]
    pub(crate) skip: bool,
    /// Exit code if the lock is held
    #[arg(short = 'E', long, value_name = "CODE", default_value_t = exit_code::Code::CONFLICT.0)]
    pub(crate) conflict_exit_code: u8,
    /// Exit code if the lock was lost while the command ran
    #[arg(long, value_name = "CODE", default_value_t = exit_code::Code::LOST.0)]
    pub(crate) lost_exit_code: u8,
    /// Time between TERM and KILL after a loss of the lock
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "10s")]
    pub(crate) kill_after: Duration,
    /// Interval of the checks that the session lives
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_pause, default_value = "5s")]
    pub(crate) check_interval: Duration,
    /// The command does not inherit the connection. The lock ends with advisory-lock
    #[arg(short = 'o', long)]
    pub(crate) close: bool,
    /// Wait for the background processes of the command, too
    #[arg(long, conflicts_with = "close")]
    pub(crate) wait_for_descendants: bool,
    /// Run the command in this process group. Default if standard input is a terminal. A command
    /// that asks for a password although its input is redirected needs it
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Issue a fencing token from this sequence, as ADVISORY_LOCK_TOKEN
    #[arg(long, value_name = "SEQUENCE")]
    pub(crate) token: Option<String>,
    /// Run this text with $SHELL -c
    #[arg(short = 'c', long, value_name = "TEXT", conflicts_with = "command")]
    pub(crate) shell: Option<OsString>,
    /// Command and its arguments, after --
    #[arg(last = true, required_unless_present = "shell")]
    pub(crate) command: Vec<OsString>,
}

impl Run {
    /// Returns the limit of the wait.
    pub(crate) fn limit(&self) -> Option<Duration> {
        let none = self.no_wait || (self.skip && self.wait.is_none());
        if none {
            Some(Duration::ZERO)
        } else {
            self.wait
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Try {
    #[command(flatten)]
    pub(crate) lock: LockName,
    #[command(flatten)]
    pub(crate) acquire: Acquire,
}

#[derive(Args, Debug)]
pub(crate) struct Wait {
    #[command(flatten)]
    pub(crate) lock: LockName,
    #[command(flatten)]
    pub(crate) acquire: Acquire,
    /// Longest wait. Default: no limit
    #[arg(short, long, value_name = "DURATION", value_parser = duration::parse)]
    pub(crate) wait: Option<Duration>,
}

/// Selection of locks.
#[derive(Args, Clone, Debug)]
pub(crate) struct Ls {
    /// Only locks that a session holds
    #[arg(long)]
    pub(crate) held: bool,
    /// Only locks that a session waits for
    #[arg(long, conflicts_with = "held")]
    pub(crate) waiting: bool,
    /// File with one name per line, to show names instead of numbers
    #[arg(long, value_name = "FILE")]
    pub(crate) names: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct Kill {
    #[command(flatten)]
    pub(crate) lock: LockName,
    /// Only this session, which must hold an advisory lock or wait for one
    #[arg(long, value_name = "PID", conflicts_with_all = ["name", "key"])]
    pub(crate) pid: Option<i32>,
    /// Time to wait for the end of the sessions
    #[arg(short, long, value_name = "DURATION", value_parser = duration::parse, default_value = "10s")]
    pub(crate) wait: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct Key {
    #[command(flatten)]
    pub(crate) lock: LockName,
    /// The keys of all schemes
    #[arg(long)]
    pub(crate) all: bool,
    /// An SQL condition for the view pg_locks
    #[arg(long, conflicts_with_all = ["all", "json"])]
    pub(crate) sql: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Do not check for a transaction pooler, which needs a second connection
    #[arg(long)]
    pub(crate) no_pooler_check: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) ls: Ls,
    /// Pause between two tables
    #[arg(short = 'n', long, value_name = "DURATION", value_parser = duration::parse_pause, default_value = "2s")]
    pub(crate) interval: Duration,
    /// Number of tables. Default: until a signal
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
}
