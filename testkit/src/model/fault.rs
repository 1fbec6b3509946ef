//! Faults on demand.

use std::collections::BTreeMap;

use super::server::Code;

/// A fault of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// It fails before it has done anything.
    Refuse(Code),
    /// It is done, and reported as failed: a wait may be granted and time out at the same moment.
    DoneButReported(Code),
    /// It is done, and the connection breaks before the answer arrives.
    LostReply,
    /// The server ends the session instead.
    Terminated,
    /// The server does not call the lock function and returns null. It has no effect on a request
    /// that returns nothing.
    Null,
    /// The client panics before anything is sent.
    Panics,
    /// It is done, and the client panics when the answer arrives.
    DoneButPanics,
}

/// The payload of a client's panic, which distinguishes it from other panics.
#[derive(Debug)]
pub struct ClientPanic;

/// The planned faults of a session, by the number of the request. The first is number 0.
#[derive(Debug, Default)]
pub struct Faults {
    planned: BTreeMap<usize, Fault>,
    others_leave_at: Option<usize>,
    requests: usize,
}

impl Faults {
    pub fn plan(&mut self, request: usize, fault: Fault) {
        self.planned.insert(request, fault);
    }

    /// Every other session ends just before this request, so that a key that was busy is free.
    pub fn others_leave_at(&mut self, request: usize) {
        self.others_leave_at = Some(request);
    }

    pub fn do_others_leave(&self) -> bool {
        self.others_leave_at == Some(self.requests)
    }

    pub fn is_next(&self, fault: Fault) -> bool {
        self.planned.get(&self.requests) == Some(&fault)
    }

    pub fn next_fault(&mut self) -> Option<Fault> {
        let fault = self.planned.remove(&self.requests);
        self.requests += 1;
        fault
    }

    /// The number of requests so far. A test can let each of them fail in turn.
    pub const fn requests(&self) -> usize {
        self.requests
    }
}
