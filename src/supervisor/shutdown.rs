//! The request to stop: one flag that tasks await and threads poll or sleep on, and the signals that raise it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{self, SignalKind};
use tokio::sync::Notify;

/// A request that is made once and never taken back; cloning shares it.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<State>);

#[derive(Default)]
struct State {
    requested: AtomicBool,
    tasks: Notify,
    /// Holds nothing: the flag is set under it, so that no thread misses the wake-up.
    gate: Mutex<()>,
    threads: Condvar,
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").field("requested", &self.is_requested()).finish()
    }
}

impl Shutdown {
    pub fn request(&self) {
        {
            let _gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
            self.0.requested.store(true, Ordering::SeqCst);
        }
        self.0.threads.notify_all();
        self.0.tasks.notify_waiters();
    }

    /// Cheap enough to ask in every round of a loop.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    /// Resolves when shutdown is requested, at once when it already was.
    pub async fn requested(&self) {
        let notified = self.0.tasks.notified();
        tokio::pin!(notified);
        // Listening begins before the flag is read: a request in between is not missed.
        notified.as_mut().enable();
        if !self.is_requested() {
            notified.await;
        }
    }

    /// Blocks the thread until shutdown is requested or the time is over; says whether it was requested.
    pub fn wait_for(&self, time: Duration) -> bool {
        let gate = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.threads.wait_timeout_while(gate, time, |()| !self.is_requested());
        drop(waited);
        self.is_requested()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    pub(super) fn name(self) -> &'static str {
        match self {
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        }
    }
}

pub(super) struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    seen: bool,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Signals {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            seen: false,
        })
    }

    pub(super) async fn recv(&mut self) -> Signal {
        // `None` means that the signal can never arrive again: wait for the other one.
        let signal = tokio::select! {
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.terminate.recv() => Signal::Terminate,
            else => std::future::pending().await,
        };
        self.seen = true;
        signal
    }

    /// Whether a signal has arrived.
    pub(super) fn seen(&self) -> bool {
        self.seen
    }
}

/// The exit status by which shells know a process that a signal ended: 128 and the signal's number.
pub(super) fn exit_at_once(signal: Signal) -> ! {
    tracing::error!(signal = signal.name(), "second signal, exiting at once; unfinished batches are repeated");
    std::process::exit(match signal {
        Signal::Interrupt => 130,
        Signal::Terminate => 143,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_wakes_on_the_request() {
        let shutdown = Shutdown::default();
        assert!(!shutdown.wait_for(Duration::ZERO));
        let waiting = std::thread::spawn({
            let shutdown = shutdown.clone();
            move || shutdown.wait_for(Duration::from_secs(60))
        });
        shutdown.request();
        assert!(waiting.join().unwrap());
        assert!(shutdown.wait_for(Duration::from_secs(60)), "a request is not forgotten");
    }

    #[tokio::test]
    async fn a_task_sees_a_request_made_before_and_after() {
        let shutdown = Shutdown::default();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        tokio::task::yield_now().await;
        shutdown.request();
        waiting.await.unwrap();
        shutdown.requested().await;
    }
}
