//! Signals to this program.
//!
//! # Implementation details
//!
//! A signal that was ignored at the start stays ignored, as `nohup` and background jobs of a shell
//! need it: a handler here would also end the command's own disposition. A signal that was blocked
//! is unblocked. The handlers are installed before the program connects, so that no signal is
//! missed between two phases.
//!
//! A signal that ends the command, or the wait, ends this program in the same way. By a code alone,
//! a script in bash would go on after Ctrl-C, and systemd would take a stopped service for a failed
//! one.
//!
//! CHLD is handled even if it was ignored: the kernel would reap the command then, and its status
//! would be lost.

use std::fs;
use std::future::poll_fn;
use std::task::{Context, Poll};

use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal, getpid};
use signal_hook::low_level::emulate_default_handler;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::task::yield_now;

use crate::exit_code::Code;
use crate::failure::Failure;

/// The signals that are passed on.
const SIGNALS: [Signal; 6] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// The signals that end a process without a core dump.
const ENDS: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

/// The handlers of the signals.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
    received: Vec<Signal>,
}

impl Signals {
    pub(crate) fn install() -> Result<Self, Failure> {
        let ignored = ignored();
        let handled = SIGNALS
            .into_iter()
            .filter(|signal| !is_in(*signal, ignored));
        let streams =
            handled.map(|number| Ok((number, signal(SignalKind::from_raw(number.as_raw()))?)));
        let streams = streams.collect::<std::io::Result<_>>();
        // The handler stays after the drop of its stream.
        let streams = streams.and_then(|streams| signal(SignalKind::child()).map(|_| streams));
        // After the handlers, because a pending signal arrives now.
        let signals = streams.and_then(|streams| {
            unblock()?;
            Ok(Self {
                streams,
                received: Vec::new(),
            })
        });
        signals.map_err(|error| {
            Failure::new(Code::OUTPUT, format_args!("cannot handle signals: {error}"))
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| self.poll(context)).await
    }

    /// Returns a signal that has arrived already.
    pub(crate) async fn arrived(&mut self) -> Option<Signal> {
        // The runtime reads the pipe of the handlers after a yield.
        yield_now().await;
        poll_fn(|context| match self.poll(context) {
            Poll::Ready(signal) => Poll::Ready(Some(signal)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// Ends this program by the signal that ended the command or the wait, if it has received that
    /// signal, too. Returns the exit code otherwise.
    pub(crate) async fn end_by(&mut self, number: i32) -> Code {
        while self.arrived().await.is_some() {}
        let mut received = self.received.iter();
        let is_received = received.any(|signal| signal.as_raw() == number && ENDS.contains(signal));
        // The kernel ignores a signal without a handler to the process 1 of a container.
        if is_received && getpid() != Pid::INIT {
            // An error says that the signal has no default, but each of these has one.
            let _ = emulate_default_handler(number);
        }
        Code::of_signal(number)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Signal> {
        let ready =
            self.streams
                .iter_mut()
                .find_map(|(signal, stream)| match stream.poll_recv(context) {
                    Poll::Ready(Some(())) => Some(*signal),
                    _ => None,
                });
        self.received.extend(ready);
        ready.map_or(Poll::Pending, Poll::Ready)
    }
}

/// Unblocks the signals that the caller of the program has blocked. The command starts with an
/// empty mask, so only this program would not receive them. Without [`pidfd_open`], CHLD shows the
/// end of the command.
///
/// [`pidfd_open`]: https://man7.org/linux/man-pages/man2/pidfd_open.2.html
fn unblock() -> std::io::Result<()> {
    let signals = SIGNALS.into_iter().chain([Signal::CHILD]);
    let signals = signals.filter_map(|signal| signal.as_raw().try_into().ok());
    SigSet::from_iter(signals).thread_unblock()?;
    Ok(())
}

/// Returns the set of ignored signals, from [`/proc/self/status`]. Elsewhere than on Linux it is
/// empty.
///
/// [`/proc/self/status`]: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0)
}

fn is_in(signal: Signal, set: u64) -> bool {
    let bit = u32::try_from(signal.as_raw() - 1).ok();
    bit.and_then(|bit| set.checked_shr(bit))
        .is_some_and(|set| set & 1 == 1)
}
