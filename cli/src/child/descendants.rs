//! A pipe that the command and all its descendants inherit. Its end of file shows that they have
//! ended.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use rustix::io::{Errno, FdFlags, fcntl_setfd, read};
use tokio::net::unix::pipe::Receiver;

/// The reading end of the pipe.
#[derive(Debug)]
pub(super) struct Descendants(Receiver);

impl Descendants {
    /// Returns the reading end, and the end to inherit, which has no CLOEXEC.
    pub(super) fn pipe() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe()?;
        fcntl_setfd(&reader, FdFlags::CLOEXEC)?;
        Ok((Self(Receiver::from_owned_fd(reader)?), writer))
    }

    /// Returns `true` if a descendant lives.
    pub(super) fn live(&self) -> bool {
        matches!(read(&self.0, &mut [0; 1]), Err(Errno::AGAIN) | Ok(1..))
    }

    /// Waits for the end of the last descendant.
    pub(super) async fn end(&self) {
        loop {
            if self.0.readable().await.is_err() {
                return;
            }
            // A descendant may have written to the pipe.
            match self.0.try_read(&mut [0; 64]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }
}
