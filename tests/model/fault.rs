//! Faults on demand.

use std::collections::BTreeMap;

use super::server::Code;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// It fails before it has done anything.
    Refuse(Code),
    /// It is done, and reported as failed: a wait may be granted and time out at the same moment.
    DoneButReported(Code),
    /// It is done, and the connection breaks before the answer arrives.
    LostReply,
    /// The server ends the session instead.
    Terminated,
    /// The lock function is not asked, and null is the answer. Of what has no answer, nothing becomes of it.
    Null,
    /// The client panics before anything is sent.
    Panics,
    /// It is done, and the client panics when the answer arrives.
    DoneButPanics,
}

/// What a client panics with, so that another panic is not taken for it.
#[derive(Debug)]
pub(crate) struct ClientPanic;

/// Which of a session's requests go wrong; the first is number 0.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    planned: BTreeMap<usize, Fault>,
    others_leave_at: Option<usize>,
    requests: usize,
}

impl Faults {
    pub(crate) fn plan(&mut self, request: usize, fault: Fault) {
        self.planned.insert(request, fault);
    }

    /// Every other session ends just before this request, so that a key that was busy is free.
    pub(crate) fn others_leave_at(&mut self, request: usize) {
        self.others_leave_at = Some(request);
    }

    pub(crate) fn do_others_leave(&self) -> bool {
        self.others_leave_at == Some(self.requests)
    }

    pub(crate) fn is_next(&self, fault: Fault) -> bool {
        self.planned.get(&self.requests) == Some(&fault)
    }

    pub(crate) fn next(&mut self) -> Option<Fault> {
        let fault = self.planned.remove(&self.requests);
        self.requests += 1;
        fault
    }

    /// How many requests were made, so that a test can let each of them fail in turn.
    pub(crate) const fn requests(&self) -> usize {
        self.requests
    }
}
