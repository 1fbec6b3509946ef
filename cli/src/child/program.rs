//! The program of a command: found before the server is asked, started under the lock.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use tokio::process::Child;

use crate::arguments::Run;
use crate::exit_code::Code;
use crate::failure::Failure;
use crate::output::printable;

/// The search path if `PATH` is not set.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A program with its arguments.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// Finds the program of the arguments.
    pub(crate) fn of(run: &Run) -> Result<Self, Failure> {
        let arguments = match &run.shell {
            Some(text) => {
                let shell = env::var_os("SHELL").filter(|shell| !shell.is_empty());
                vec![
                    shell.unwrap_or_else(|| "/bin/sh".into()),
                    "-c".into(),
                    text.clone(),
                ]
            }
            None => run.command.clone(),
        };
        let name = arguments.first().cloned().unwrap_or_default();
        Ok(Self {
            path: find(&name)?,
            arguments,
        })
    }

    /// Starts the program. It inherits `inherited`; a process group of its own receives signals
    /// that are sent to it.
    pub(crate) fn start(
        &self,
        variables: &[(&str, Option<String>)],
        inherited: Vec<OwnedFd>,
        own_group: bool,
    ) -> Result<Child, Failure> {
        let spawn = |mut command: Command| {
            for (name, value) in variables {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
            if own_group {
                command.process_group(0);
            }
            tokio::process::Command::from(command).spawn()
        };
        let mut command = Command::new(&self.path);
        let arguments = self.arguments.get(1..).unwrap_or_default();
        command.arg0(self.arguments.first().unwrap_or(&OsString::new()));
        command.args(arguments);
        let mut started = spawn(command);
        if is_script_without_interpreter(&started) {
            let mut shell = Command::new("/bin/sh");
            shell.arg(&self.path).args(arguments);
            started = spawn(shell);
        }
        // They have no CLOEXEC, so they stay open until the program has started.
        drop(inherited);
        started.map_err(|error| {
            let path = printable(&self.path.to_string_lossy());
            Failure::new(code_of(&error), format_args!("cannot run {path}: {error}"))
        })
    }
}

/// Returns `true` if the system does not know the format of the file. `execvp` runs it with
/// `/bin/sh` then, and so do `env` and flock(1).
fn is_script_without_interpreter(started: &io::Result<Child>) -> bool {
    let error = started.as_ref().err().and_then(io::Error::raw_os_error);
    error == Some(Errno::NOEXEC.raw_os_error())
}

/// Returns the exit code for an error of the start.
fn code_of(error: &io::Error) -> Code {
    match error.kind() {
        ErrorKind::NotFound => Code::NOT_FOUND,
        // The system refuses another process, or has no memory for it.
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory => Code::OUTPUT,
        _ => Code::NOT_EXECUTABLE,
    }
}

/// Finds a program as `execvp` does.
fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    let shown = printable(&name.to_string_lossy());
    let not_found = || {
        Failure::new(
            Code::NOT_FOUND,
            format_args!("the command {shown:?} does not exist"),
        )
    };
    let candidates: Vec<PathBuf> = if name.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(name)]
    } else if name.is_empty() {
        return Err(not_found());
    } else {
        let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        env::split_paths(&path)
            .map(|directory| directory.join(name))
            .collect()
    };
    let files: Vec<PathBuf> = candidates
        .into_iter()
        .filter(|path| path.is_file())
        .collect();
    match files.iter().find(|path| is_executable(path)) {
        Some(path) => Ok(path.clone()),
        None if files.is_empty() => Err(not_found()),
        None => {
            let text = format!("the command {shown:?} is not executable");
            Err(Failure::new(Code::NOT_EXECUTABLE, text))
        }
    }
}

fn is_executable(path: &Path) -> bool {
    access(path, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_process_is_no_fault_of_the_command() {
        for (errno, code) in [
            (Errno::NOENT, Code::NOT_FOUND),
            (Errno::ACCESS, Code::NOT_EXECUTABLE),
            (Errno::AGAIN, Code::OUTPUT),
            (Errno::NOMEM, Code::OUTPUT),
        ] {
            assert_eq!(code_of(&errno.into()), code, "{errno}");
        }
    }

    #[test]
    fn program_is_searched_as_execvp_does() {
        assert!(find(OsStr::new("sh")).unwrap().ends_with("sh"));
        assert_eq!(find(OsStr::new("/bin/sh")).unwrap(), Path::new("/bin/sh"));
        for (name, code) in [
            ("", Code::NOT_FOUND),
            ("-c", Code::NOT_FOUND),
            ("no-such-command", Code::NOT_FOUND),
            ("/no/such", Code::NOT_FOUND),
            ("/etc/passwd", Code::NOT_EXECUTABLE),
        ] {
            assert_eq!(find(OsStr::new(name)).unwrap_err().code, code, "{name}");
        }
    }
}
