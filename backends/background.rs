//! What follows a dropped future and cannot wait for anybody.

use std::thread;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};

/// Something to be done in the background.
pub(crate) trait Job: Send + 'static {
    /// Does it, or goes on with it.
    fn run(&mut self) -> impl Future<Output = ()> + Send;

    /// There was no runtime for it, or that is going or standing still. Called before a thread runs it, where it was dropped.
    fn on_no_runtime(&mut self) {}
}

/// Runs a job in a runtime. Where there is none, or it ends before the job does, or it runs only while somebody blocks on it, a thread
/// takes over.
pub(crate) fn run<J: Job>(job: J, runtime: Option<Handle>) {
    let in_runtime = InRuntime(Some(job));
    match runtime {
        Some(runtime) if runtime.runtime_flavor() != RuntimeFlavor::CurrentThread => {
            runtime.spawn(in_runtime.run());
        }
        Some(_) | None => drop(in_runtime),
    }
}

struct InRuntime<J: Job>(Option<J>);

impl<J: Job> InRuntime<J> {
    async fn run(mut self) {
        if let Some(job) = &mut self.0 {
            job.run().await;
        }
        self.0 = None;
    }
}

impl<J: Job> Drop for InRuntime<J> {
    fn drop(&mut self) {
        let Some(mut job) = self.0.take() else {
            return;
        };
        job.on_no_runtime();
        let thread = thread::Builder::new().name("advisory-locking".to_owned());
        // Without a thread a wait on the server lasts to its limit; there is nobody to tell.
        let _ = thread.spawn(move || {
            if let Ok(runtime) = Builder::new_current_thread().enable_all().build() {
                runtime.block_on(job.run());
            }
        });
    }
}
