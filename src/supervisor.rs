//! Every task and thread of the daemon: started by name, watched, and stopped in order.
//!
//! Roles end first: on a signal, on `Shutdown::request`, or because one of them ended early, all are asked to drain
//! and have one deadline for it. Services (the HTTP server) go on until the roles are done, so that a drain can be
//! watched. What does not end in time is named in the error.

mod shutdown;

use std::any::Any;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

pub use shutdown::Shutdown;
use shutdown::{Signals, exit_at_once};

/// Services have nothing to finish but answers on their way.
const SERVICE_DEADLINE: Duration = Duration::from_secs(2);

type Cause = Box<dyn StdError + Send + Sync>;

/// Why the daemon stopped, where that was not asked for or not in time.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    #[error("{name} failed")]
    Failed { name: String, source: Cause },
    #[error("{name} ended early")]
    EndedEarly { name: String },
    #[error("{name} panicked: {message}")]
    Panicked { name: String, message: String },
    #[error("the system refuses a thread for {name}")]
    NoThread { name: String, source: std::io::Error },
    #[error("not finished within the drain deadline of {deadline:?}: {}", names.join(", "))]
    DrainDeadline { names: Vec<String>, deadline: Duration },
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
}

/// Owns all roles and services until they have ended.
#[derive(Debug, Default)]
pub struct Supervisor {
    roles: Group,
    services: Group,
}

impl Supervisor {
    pub fn new() -> Self {
        Supervisor::default()
    }

    /// What roles wait on to know that they shall drain. Requesting it stops the daemon without an error.
    pub fn shutdown(&self) -> Shutdown {
        self.roles.shutdown.clone()
    }

    /// What services wait on: requested when all roles have ended.
    pub fn service_shutdown(&self) -> Shutdown {
        self.services.shutdown.clone()
    }

    /// Starts an asynchronous role. It must not return before shutdown is requested.
    pub fn spawn_role<E>(&mut self, name: &str, role: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<Cause> + 'static,
    {
        self.roles.spawn(name, role);
    }

    /// Starts a role on a thread of its own, for work that blocks. It must not return before shutdown is requested.
    pub fn spawn_role_thread<E>(
        &mut self,
        name: &str,
        role: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<(), SupervisorError>
    where
        E: Into<Cause> + 'static,
    {
        self.roles.spawn_thread(name, role)
    }

    /// Starts something that outlives the roles.
    pub fn spawn_service<E>(&mut self, name: &str, service: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<Cause> + 'static,
    {
        self.services.spawn(name, service);
    }

    /// Runs until a signal arrives, shutdown is requested, or something ends early; then drains. The first failure
    /// is the result. A second signal ends the process at once.
    pub async fn run(mut self, drain_deadline: Duration) -> Result<(), SupervisorError> {
        let mut signals = Signals::listen().map_err(SupervisorError::Signals)?;
        let shutdown = self.shutdown();
        let mut result = tokio::select! {
            biased;
            () = shutdown.requested() => Ok(()),
            ended = self.roles.next(), if !self.roles.is_empty() => ended.and_then(Ended::early),
            ended = self.services.next(), if !self.services.is_empty() => ended.and_then(Ended::early),
            signal = signals.recv() => {
                tracing::info!(signal = signal.name(), "draining; a second signal exits at once");
                Ok(())
            }
        };
        if let Err(error) = &result {
            tracing::error!(%error, "stopping");
        }
        shutdown.request();
        let second_signal = async {
            if !signals.seen() {
                // This signal is the first: somebody asks for what is happening already.
                let signal = signals.recv().await;
                tracing::info!(signal = signal.name(), "already draining; a second signal exits at once");
            }
            signals.recv().await
        };
        let drain = async {
            let drained = self.roles.drain(drain_deadline).await;
            self.services.shutdown.request();
            drained.and(self.services.drain(SERVICE_DEADLINE).await)
        };
        tokio::select! {
            drained = drain => result = result.and(drained),
            signal = second_signal => exit_at_once(signal),
        }
        result
    }
}

/// Tasks and threads that stop together.
#[derive(Debug, Default)]
struct Group {
    tasks: JoinSet<Result<(), Cause>>,
    names: HashMap<Id, String>,
    shutdown: Shutdown,
}

struct Ended {
    name: String,
}

impl Ended {
    fn early(self) -> Result<(), SupervisorError> {
        Err(SupervisorError::EndedEarly { name: self.name })
    }
}

impl Group {
    fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    fn spawn<E>(&mut self, name: &str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<Cause> + 'static,
    {
        let handle = self.tasks.spawn(async move { task.await.map_err(Into::into) });
        self.names.insert(handle.id(), name.to_owned());
    }

    fn spawn_thread<E>(
        &mut self,
        name: &str,
        body: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<(), SupervisorError>
    where
        E: Into<Cause> + 'static,
    {
        let (ended_tx, ended_rx) = tokio::sync::oneshot::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Whatever the thread held is dropped with it, so nobody sees what a panic left half done.
                let ended = std::panic::catch_unwind(AssertUnwindSafe(body));
                // Nobody listens any more when the deadline has passed.
                drop(ended_tx.send(ended.map(|result| result.map_err(Into::<Cause>::into))));
            })
            .map_err(|source| SupervisorError::NoThread { name: name.to_owned(), source })?;
        // The task stands for the thread and passes its panic on.
        let handle = self.tasks.spawn(async move {
            match ended_rx.await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(_) => Err("the thread vanished".into()),
            }
        });
        self.names.insert(handle.id(), name.to_owned());
        Ok(())
    }

    /// Waits for the next end; the group must not be empty.
    async fn next(&mut self) -> Result<Ended, SupervisorError> {
        let ended = self.tasks.join_next_with_id().await.expect("the group is not empty");
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        let name = self.names.remove(&id).unwrap_or_default();
        match ended {
            Ok((_, Ok(()))) => Ok(Ended { name }),
            Ok((_, Err(source))) => Err(SupervisorError::Failed { name, source }),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => Err(SupervisorError::Panicked { name, message: panic_message(panic.as_ref()) }),
                Err(_) => Err(SupervisorError::EndedEarly { name }),
            },
        }
    }

    /// Waits until all have ended or the deadline has passed; the first failure is the result.
    async fn drain(&mut self, deadline: Duration) -> Result<(), SupervisorError> {
        let end = Instant::now() + deadline;
        let mut result = Ok(());
        while !self.is_empty() {
            match tokio::time::timeout_at(end, self.next()).await {
                Ok(Ok(Ended { name })) => tracing::info!(name, "ended"),
                Ok(Err(error)) => {
                    tracing::error!(%error, "failed while draining");
                    result = result.and(Err(error));
                }
                Err(_) => {
                    let mut names: Vec<String> = self.names.drain().map(|(_, name)| name).collect();
                    names.sort();
                    self.tasks.abort_all();
                    return result.and(Err(SupervisorError::DrainDeadline { names, deadline }));
                }
            }
        }
        result
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_requested_stop_drains_threads_and_tasks() {
        let mut supervisor = Supervisor::new();
        let shutdown = supervisor.shutdown();
        let task = shutdown.clone();
        supervisor.spawn_role("task", async move {
            task.requested().await;
            Ok::<_, Infallible>(())
        });
        let thread = shutdown.clone();
        supervisor
            .spawn_role_thread("thread", move || {
                while !thread.wait_for(LONG) {}
                Ok::<_, Infallible>(())
            })
            .unwrap();
        shutdown.request();
        supervisor.run(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn services_outlive_the_roles() {
        let mut supervisor = Supervisor::new();
        let role_done = Arc::new(AtomicBool::new(false));
        let (shutdown, service_shutdown) = (supervisor.shutdown(), supervisor.service_shutdown());
        let (written, read) = (Arc::clone(&role_done), Arc::clone(&role_done));
        let role_shutdown = shutdown.clone();
        supervisor.spawn_role("role", async move {
            role_shutdown.requested().await;
            tokio::task::yield_now().await;
            written.store(true, Ordering::SeqCst);
            Ok::<_, Infallible>(())
        });
        supervisor.spawn_service("ops", async move {
            service_shutdown.requested().await;
            if read.load(Ordering::SeqCst) { Ok(()) } else { Err("closed before the role had ended") }
        });
        shutdown.request();
        supervisor.run(LONG).await.unwrap();
    }

    #[tokio::test]
    async fn a_role_that_ends_early_stops_the_others_and_is_named() {
        let mut supervisor = Supervisor::new();
        let other = supervisor.shutdown();
        supervisor.spawn_role("other", async move {
            other.requested().await;
            Ok::<_, Infallible>(())
        });
        supervisor.spawn_role_thread("classify", || Ok::<_, Infallible>(())).unwrap();
        let error = supervisor.run(LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "classify ended early");
    }

    #[tokio::test]
    async fn failures_and_panics_carry_the_name() {
        let mut failing = Supervisor::new();
        failing.spawn_role("tally", async { Err("the table is gone") });
        let error = failing.run(LONG).await.unwrap_err();
        assert_eq!(
            (error.to_string(), error.source().unwrap().to_string()),
            ("tally failed".into(), "the table is gone".into())
        );

        let mut panicking = Supervisor::new();
        panicking.spawn_role_thread("classify", || -> Result<(), Infallible> { panic!("broken invariant") }).unwrap();
        let error = panicking.run(LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "classify panicked: broken invariant");
    }

    #[tokio::test]
    async fn what_does_not_drain_in_time_is_named() {
        let mut supervisor = Supervisor::new();
        for name in ["stuck", "also stuck"] {
            supervisor.spawn_role(name, std::future::pending::<Result<(), Infallible>>());
        }
        supervisor.shutdown().request();
        let error = supervisor.run(Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.to_string(), "not finished within the drain deadline of 20ms: also stuck, stuck");
    }
}
