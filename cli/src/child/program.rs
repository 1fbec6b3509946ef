//! The program of a command: found before the server is asked, started under the lock.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, access};
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
                    text.into(),
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
        variables: &[(&str, String)],
        inherited: Vec<OwnedFd>,
        own_group: bool,
    ) -> Result<Child, Failure> {
        let mut command = Command::new(&self.path);
        if let Some((name, arguments)) = self.arguments.split_first() {
            command.arg0(name).args(arguments);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        if own_group {
            command.process_group(0);
        }
        let started = tokio::process::Command::from(command).spawn();
        // They have no CLOEXEC, so they stay open until the program has started.
        drop(inherited);
        started.map_err(|error| {
            let code = if error.kind() == ErrorKind::NotFound {
                Code::NOT_FOUND
            } else {
                Code::NOT_EXECUTABLE
            };
            let path = printable(&self.path.to_string_lossy());
            Failure::new(code, format_args!("cannot run {path}: {error}"))
        })
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
