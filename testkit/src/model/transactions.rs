//! Transactions, savepoints, and what a failed statement does to them.

use super::server::{Code, Frame, Pid, Server, Session};

impl Server {
    /// The session, if it takes statements.
    pub(super) fn usable(&mut self, pid: Pid) -> Result<&mut Session, Code> {
        match self.sessions.get_mut(&pid) {
            None => Err("08006"),
            Some(session) if session.aborted => Err("25P02"),
            Some(session) => Ok(session),
        }
    }

    /// Fails a statement of this session. In a transaction, the locks of the innermost savepoint
    /// are released at once, before the client rolls back.
    pub fn fail(&mut self, pid: Pid, code: Code) -> Code {
        let frame = self.sessions.get_mut(&pid).and_then(|session| {
            session.aborted = !session.frames.is_empty();
            session.frames.last_mut()
        });
        if let Some(frame) = frame {
            frame.locks.clear();
            self.wake();
        }
        code
    }

    pub fn begin(&mut self, pid: Pid) -> Result<(), Code> {
        // In a transaction it is a warning.
        if self.usable(pid)?.frames.is_empty() {
            let began = self.transaction_begins();
            self.session(pid).frames.push(Frame {
                began,
                ..Frame::default()
            });
        }
        Ok(())
    }

    /// Begins a transaction, and fails if the application has begun one as text.
    pub fn begin_unless_open(&mut self, pid: Pid) -> Result<(), Code> {
        let was_open = self.is_in_transaction(pid);
        self.begin(pid)?;
        if was_open {
            return Err(self.fail(pid, "ZAL02"));
        }
        Ok(())
    }

    /// The start of the transaction in which a statement runs, which is its own if none is open.
    pub(super) fn transaction_began(&mut self, pid: Pid) -> i64 {
        match self.session(pid).frames.first() {
            Some(outermost) => outermost.began,
            None => self.transaction_begins(),
        }
    }

    /// No two transactions begin at the same time.
    fn transaction_begins(&mut self) -> i64 {
        self.last_start += 1;
        self.last_start
    }

    /// Returns whether no open transaction has written.
    pub(super) fn nothing_uncommitted(&mut self, pid: Pid) -> bool {
        let frames = &self.session(pid).frames;
        frames.iter().all(|frame| frame.written == 0)
    }

    /// `false`: the transaction was aborted, so it was rolled back.
    pub fn commit(&mut self, pid: Pid) -> Result<bool, Code> {
        let session = self.sessions.get_mut(&pid).ok_or("08006")?;
        let committed = !session.aborted;
        if committed {
            session.written += session
                .frames
                .iter()
                .map(|frame| frame.written)
                .sum::<i64>();
        }
        self.rollback(pid)?;
        Ok(committed)
    }

    pub fn rollback(&mut self, pid: Pid) -> Result<(), Code> {
        let session = self.sessions.get_mut(&pid).ok_or("08006")?;
        session.frames.clear();
        session.aborted = false;
        self.wake();
        Ok(())
    }

    pub fn savepoint(&mut self, pid: Pid, name: &str) -> Result<(), Code> {
        let session = self.usable(pid)?;
        if session.frames.is_empty() {
            return Err("25P01");
        }
        session.frames.push(Frame {
            name: name.to_owned(),
            ..Frame::default()
        });
        Ok(())
    }

    /// Moves the effects of the savepoint to the surrounding frame.
    pub fn release_savepoint(&mut self, pid: Pid, name: &str) -> Result<(), Code> {
        self.usable(pid)?;
        let index = self.find_savepoint(pid, name)?;
        let frames = &mut self.session(pid).frames;
        for frame in frames.split_off(index) {
            let outer = frames.last_mut().expect("a savepoint is in a transaction");
            outer.locks.extend(frame.locks);
            outer.written += frame.written;
        }
        Ok(())
    }

    /// The savepoint stays, empty.
    pub fn rollback_to(&mut self, pid: Pid, name: &str) -> Result<(), Code> {
        let index = self.find_savepoint(pid, name)?;
        let session = self.session(pid);
        session.frames.truncate(index);
        session.aborted = false;
        self.savepoint(pid, name)?;
        self.wake();
        Ok(())
    }

    fn find_savepoint(&mut self, pid: Pid, name: &str) -> Result<usize, Code> {
        let session = self.sessions.get(&pid).ok_or("08006")?;
        let found = session.frames.iter().rposition(|frame| frame.name == name);
        match found {
            Some(index) if index > 0 => Ok(index),
            _ if session.frames.is_empty() => Err("25P01"),
            _ => Err(self.fail(pid, "3B001")),
        }
    }

    /// An `INSERT`.
    pub fn write(&mut self, pid: Pid) -> Result<(), Code> {
        let session = self.usable(pid)?;
        match session.frames.last_mut() {
            Some(frame) => frame.written += 1,
            None => session.written += 1,
        }
        Ok(())
    }

    /// Returns the number of its own rows that this session sees.
    pub fn written(&mut self, pid: Pid) -> Result<i64, Code> {
        let session = self.usable(pid)?;
        let open: i64 = session.frames.iter().map(|frame| frame.written).sum();
        Ok(session.written + open)
    }
}
