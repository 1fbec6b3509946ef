//! Records of requests and holds: [`RequestRecord`], [`GrantRecord`].

#[cfg(feature = "lock-manager")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[cfg(feature = "lock-manager")]
use super::notice::Notice;
use super::overdue::OverdueWatch;
#[cfg(feature = "_async")]
use super::release_failed;
use super::{LockEvent, LockSpan, Subject};
use crate::backend::Backend;
use crate::error::{LockError, LockErrorKind};
use crate::key::LockKey;
use crate::observer::{HoldEnd, HoldOutcome, ObservedLock, RequestEnd, RequestOutcome, observer};
use crate::options::{LockOptions, LockScope};

/// Request of a lock that has not ended. Sends an event when it begins and when it ends.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    /// `None` after the end.
    subject: Option<Subject>,
    since: Instant,
    waits: bool,
    polls: u32,
    warn_after: Option<Duration>,
    /// The same as `waits`, for a request of a lock manager.
    #[cfg(feature = "lock-manager")]
    notice: Option<Arc<Notice>>,
}

impl RequestRecord {
    /// Begins a request. `backend` is the database, if it is known.
    pub(crate) fn new(
        key: &LockKey,
        options: &LockOptions,
        scope: LockScope,
        backend: Option<Backend>,
        now: Instant,
    ) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let lock = ObservedLock {
            key: key.clone(),
            label: options.label,
            scope,
            mode: options.mode,
            strategy: options.waits().then(|| options.wait_strategy()),
            backend,
            pid: None,
            // Relaxed: the numbers must differ, and order no other memory access.
            request: LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1),
        };
        let subject = Subject {
            lock,
            observer: observer(),
        };
        subject.emit(LockEvent::Requested, None);
        Self {
            subject: Some(subject),
            since: now,
            waits: false,
            polls: 0,
            warn_after: options.warn_after,
            #[cfg(feature = "lock-manager")]
            notice: None,
        }
    }

    /// Records a request that failed before a driver or a lock manager received it.
    pub(crate) fn failed(
        key: &LockKey,
        options: &LockOptions,
        scope: LockScope,
        began: Instant,
        error: &LockError,
    ) {
        let request = Self::new(key, options, scope, None, began);
        request.not_granted(error, Instant::now());
    }

    /// Replaces the observer of the process.
    #[cfg(all(test, feature = "lock-manager"))]
    pub(crate) fn observe_with(&mut self, observer: &'static dyn crate::observer::LockObserver) {
        if let Some(subject) = &mut self.subject {
            subject.observer = Some(observer);
        }
    }

    /// Returns the span of the request.
    pub(crate) fn span(&self) -> LockSpan {
        let subject = self.subject.as_ref();
        subject.map_or_else(LockSpan::default, |subject| {
            LockSpan::acquire(&subject.lock)
        })
    }

    /// Records that the lock is contended and the request waits. Sends one event.
    pub(crate) fn waits(&mut self) {
        // In the unit-test kit, a lock manager may have reported the wait already.
        #[cfg(all(feature = "lock-manager", feature = "testing"))]
        if let Some(notice) = &self.notice {
            return notice.waits();
        }
        if !std::mem::replace(&mut self.waits, true) {
            if let Some(subject) = &self.subject {
                subject.emit(LockEvent::Waiting, None);
            }
        }
    }

    /// Records a pause between two attempts.
    pub(crate) fn polls(&mut self) {
        self.waits();
        // Those of a lock manager do not count.
        #[cfg(all(feature = "lock-manager", feature = "testing"))]
        if self.notice.is_some() {
            return;
        }
        self.polls = self.polls.saturating_add(1);
    }

    /// Returns the notice with which the lock manager reports that the request waits. `None` if no
    /// observer and no subscriber would receive it.
    #[cfg(feature = "lock-manager")]
    pub(crate) fn wait_notice(&mut self) -> Option<Arc<Notice>> {
        let subject = self.subject.as_ref()?;
        if subject.observer.is_none() && !super::is_logged() {
            return None;
        }
        self.notice = Some(Arc::new(Notice::new(subject)));
        self.notice.clone()
    }

    /// Sets the database, which a lock manager learns from its session.
    #[cfg(feature = "lock-manager")]
    pub(crate) fn set_backend(&mut self, read: impl FnOnce() -> Option<Backend>) {
        if let Some(subject) = &mut self.subject {
            // For an observer, and for the span of a body.
            if subject.observer.is_some() || super::is_logged() {
                subject.lock.backend = read();
            }
        }
    }

    /// Ends the request with a grant. `pid` is the process id of the session.
    pub(crate) fn granted(mut self, pid: Option<i32>, now: Instant) -> Option<GrantRecord> {
        let end = self.end_of(RequestOutcome::Granted, now);
        let mut subject = self.subject.take()?;
        subject.lock.pid = pid;
        subject.emit(LockEvent::RequestEnded(end), None);
        let watch = self.warn_after;
        Some(GrantRecord {
            watch: watch.and_then(|after| OverdueWatch::new(&subject, after)),
            subject,
            since: now,
            if_dropped: Some(HoldOutcome::Unobserved),
        })
    }

    /// Ends the request without a grant.
    pub(crate) fn not_granted(mut self, error: &LockError, now: Instant) {
        let (outcome, error) = match error.kind() {
            LockErrorKind::HeldElsewhere => (RequestOutcome::HeldElsewhere, None),
            LockErrorKind::TimedOut => (RequestOutcome::TimedOut, None),
            _ => (RequestOutcome::Failed, Some(error)),
        };
        let mut end = self.end_of(outcome, now);
        end.error_kind = error.map(LockError::kind);
        if let Some(subject) = self.subject.take() {
            subject.emit(LockEvent::RequestEnded(end), error);
        }
    }

    fn end_of(&self, outcome: RequestOutcome, now: Instant) -> RequestEnd {
        let waits = self.waits;
        #[cfg(feature = "lock-manager")]
        let waits = waits || self.notice.as_ref().is_some_and(|notice| notice.close());
        let is_refused = matches!(
            outcome,
            RequestOutcome::HeldElsewhere | RequestOutcome::TimedOut
        );
        RequestEnd {
            outcome,
            waited: now.saturating_duration_since(self.since),
            contended: waits || is_refused,
            polls: self.polls,
            error_kind: None,
        }
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if let Some(subject) = &self.subject {
            let end = self.end_of(RequestOutcome::Dropped, Instant::now());
            subject.emit(LockEvent::RequestEnded(end), None);
        }
    }
}

/// Lock that was granted, until its end is reported.
///
/// Dropping it sends no log event: the end of a transaction that the caller began is not observed.
/// Once it is [releasing](Self::releasing), that sends the event of a terminated session: the drop
/// guard of the driver terminates the session then.
#[derive(Debug)]
pub(crate) struct GrantRecord {
    subject: Subject,
    since: Instant,
    watch: Option<OverdueWatch>,
    /// Outcome if this is dropped. `None` after the end.
    if_dropped: Option<HoldOutcome>,
}

impl GrantRecord {
    /// Returns the span of a body under the lock.
    pub(crate) fn span(&self) -> LockSpan {
        LockSpan::held(&self.subject.lock)
    }

    /// Begins the release.
    pub(crate) fn releasing(mut self) -> Self {
        self.if_dropped = Some(HoldOutcome::Terminated);
        self
    }

    /// Ends the release with its result, whose error the caller receives.
    pub(crate) fn ended(mut self, result: &Result<(), LockError>, now: Instant) {
        match result {
            // A failed commit has ended the transaction, which released the lock.
            Err(error) if error.kind() == LockErrorKind::CommitFailed => {
                self.end(HoldOutcome::Released, None, now);
            }
            Err(error) if error.is_lost() => self.end(HoldOutcome::Lost, Some(error), now),
            Err(error) => self.end(HoldOutcome::NotReleased, Some(error), now),
            Ok(()) => self.end(HoldOutcome::Released, None, now),
        }
    }

    /// Ends the release with its result, and logs the error, because no caller receives it.
    #[cfg(feature = "_async")]
    pub(crate) fn ended_without_caller(self, result: Result<(), LockError>) {
        let result = result.map_err(|error| error.with_key(&self.subject.lock.key));
        self.ended(&result, Instant::now());
        if let Err(error) = &result {
            release_failed(error);
        }
    }

    /// Ends with a release whose reply no task reads.
    #[cfg(feature = "_async")]
    pub(crate) fn queued(mut self) {
        self.end(HoldOutcome::ReleaseQueued, None, Instant::now());
    }

    fn end(&mut self, outcome: HoldOutcome, error: Option<&LockError>, now: Instant) {
        self.if_dropped = None;
        // Before the event, which no warning follows.
        self.watch = None;
        let end = HoldEnd {
            outcome,
            held: now.saturating_duration_since(self.since),
            error_kind: error.map(LockError::kind),
        };
        self.subject.emit(LockEvent::HoldEnded(end), error);
    }
}

impl Drop for GrantRecord {
    fn drop(&mut self) {
        if let Some(outcome) = self.if_dropped {
            self.end(outcome, None, Instant::now());
        }
    }
}

#[cfg(all(test, feature = "lock-manager"))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::observer::LockObserver;

    #[derive(Default)]
    struct CountsWaits(AtomicUsize);

    impl LockObserver for CountsWaits {
        fn waiting(&self, _lock: &ObservedLock) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Times of the ends of requests and of holds.
    #[derive(Default)]
    struct Times(std::sync::Mutex<Vec<Duration>>);

    impl LockObserver for Times {
        fn request_ended(&self, _lock: &ObservedLock, end: &RequestEnd) {
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(end.waited);
        }

        fn hold_ended(&self, _lock: &ObservedLock, end: &HoldEnd) {
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .push(end.held);
        }
    }

    #[test]
    fn hold_begins_at_the_grant() {
        let observer: &'static Times = Box::leak(Box::default());
        let (key, options) = (LockKey::from("records"), LockOptions::wait_forever());
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let mut record = RequestRecord::new(&key, &options, LockScope::Session, None, began);
        record.observe_with(observer);
        let grant = record.granted(None, began + 2 * second).unwrap();
        grant.releasing().ended(&Ok(()), began + 5 * second);
        assert_eq!(*observer.0.lock().unwrap(), [2 * second, 3 * second]);
    }

    /// The thread that reports the wait may be slower than the one that grants the lock.
    #[test]
    fn wait_is_not_reported_after_the_end_of_the_request() {
        let observer: &'static CountsWaits = Box::leak(Box::default());
        let (key, options) = (LockKey::from("records"), LockOptions::wait_forever());
        let request = || {
            let now = Instant::now();
            let mut record = RequestRecord::new(&key, &options, LockScope::Session, None, now);
            record.observe_with(observer);
            let notice = record.wait_notice().unwrap();
            (record, notice)
        };
        let (record, notice) = request();
        drop(record.granted(None, Instant::now()));
        notice.waits();
        let (record, notice) = request();
        drop(record);
        notice.waits();
        assert_eq!(observer.0.load(Ordering::Relaxed), 0);
        let (record, notice) = request();
        notice.waits();
        notice.waits();
        drop(record);
        assert_eq!(observer.0.load(Ordering::Relaxed), 1);
    }
}
