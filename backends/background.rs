//! Background jobs, which a dropped future leaves behind because it cannot await them.

use std::pin::Pin;
use std::thread;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};

/// Runs a job in a runtime, or else on a new thread.
///
/// The thread takes over in these cases, and calls the job again:
///
/// * There is no runtime.
/// * The runtime shuts down before the job completes.
/// * It is a current-thread runtime, which makes progress only inside `block_on`.
pub(crate) fn run<F>(job: impl Fn() -> F + Send + 'static, runtime: Option<Handle>)
where
    F: Future<Output = ()> + Send + 'static,
{
    // A runtime that shuts down drops its tasks. The drop of `InRuntime` moves the job to a thread.
    let in_runtime = InRuntime(Some(Box::new(move || Box::pin(job()))));
    match runtime {
        Some(runtime) if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread => {
            runtime.spawn(in_runtime.run());
        }
        Some(_) | None => drop(in_runtime),
    }
}

/// Job that a new thread takes over if it is dropped before it has completed.
struct InRuntime(Option<Box<Job>>);

/// Function whose future is the job, from its beginning.
type Job = dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send;

impl InRuntime {
    async fn run(mut self) {
        if let Some(job) = &self.0 {
            job().await;
        }
        // The job is complete, so the drop starts no thread.
        self.0 = None;
    }
}

impl Drop for InRuntime {
    fn drop(&mut self) {
        let Some(job) = self.0.take() else {
            return;
        };
        let thread = thread::Builder::new().name("advisory-locking".to_owned());
        // The thread builds a runtime: the job needs an I/O driver, and the first runtime may have
        // shut down.
        // If the thread cannot be started, a wait on the server lasts to its limit. A drop has no
        // caller to report that to.
        let _ = thread.spawn(move || {
            if let Ok(runtime) = Builder::new_current_thread().enable_all().build() {
                runtime.block_on(job());
            }
        });
    }
}
