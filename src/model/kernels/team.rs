//! Threads that share the steps of one forward pass.
//!
//! A forward pass over a single text has some thirty steps of 10 to 100 µs, too short to hand each one to a thread pool
//! and to wait for it. So helpers are called once a pass, and then wait for steps by spinning. The caller works too and
//! needs none of them: when the pool is busy with something else and a helper comes late or never, the caller does all
//! the work itself.
//!
//! Guarantee: nothing that a step borrows is touched after `Team::for_each` returned or unwound.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::{fmt, hint, thread};

/// Turns of a spinning loop before the time slice is given away. Smaller: a step begins late, because the thread is not
/// running; larger: a thread waits for one that it keeps from running. A turn takes 10 to 50 ns.
const SPINS_BEFORE_YIELD: u32 = 512;

/// Those who work on a forward pass: the caller alone, or the caller and helpers.
#[derive(Clone)]
pub(crate) struct Team {
    shared: Option<Arc<Shared>>,
    threads: usize,
}

struct Shared {
    closed: AtomicBool,
    /// Number of the step in the upper half, how many of its parts nobody has taken in the lower half.
    ticket: AtomicU64,
    step: AtomicPtr<Step>,
    done: AtomicUsize,
    panicked: AtomicBool,
}

/// A closure on the stack of the caller.
struct Step {
    work: *const (),
    call: unsafe fn(*const (), usize),
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Team").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Runs `pass` with up to `threads` threads: this one, and helpers from the current rayon pool.
pub(crate) fn with_team<R>(threads: usize, pass: impl FnOnce(&Team) -> R) -> R {
    if threads <= 1 {
        return pass(&Team::solo());
    }
    let shared = Arc::new(Shared {
        closed: AtomicBool::new(false),
        ticket: AtomicU64::new(0),
        step: AtomicPtr::new(ptr::null_mut()),
        done: AtomicUsize::new(0),
        panicked: AtomicBool::new(false),
    });
    for _ in 1..threads {
        let shared = Arc::clone(&shared);
        rayon::spawn(move || shared.help());
    }
    let _open = Open(&shared);
    pass(&Team { shared: Some(Arc::clone(&shared)), threads })
}

/// Sends the helpers home, also when the pass panics.
struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }
}

impl Team {
    /// The caller alone.
    pub(crate) fn solo() -> Team {
        Team { shared: None, threads: 1 }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work` once for each number below `parts`, on any thread, and returns when all are done. Not to be called
    /// from inside `work`.
    ///
    /// # Panics
    /// When `work` does.
    pub(crate) fn for_each<W: Fn(usize) + Sync>(&self, parts: usize, work: W) {
        match &self.shared {
            Some(shared) if parts > 1 => shared.lead(parts, &work),
            _ => (0..parts).for_each(work),
        }
    }
}

/// Takes back the parts that nobody began and waits for the others: a `Step` must outlive all calls of it.
struct Unfinished<'a> {
    shared: &'a Shared,
    parts: usize,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let left = self.shared.ticket.fetch_and(!u64::from(u32::MAX), Ordering::AcqRel) as u32;
        let begun = self.parts - left as usize;
        let mut spins = 0;
        while self.shared.done.load(Ordering::Acquire) < begun {
            pause(&mut spins);
        }
    }
}

impl Shared {
    fn lead<W: Fn(usize) + Sync>(&self, parts: usize, work: &W) {
        /// # Safety
        /// `work` points to a live `W`.
        unsafe fn call<W: Fn(usize)>(work: *const (), part: usize) {
            // SAFETY: by contract.
            unsafe { (*work.cast::<W>())(part) }
        }
        let count = u32::try_from(parts).expect("a step has few parts");
        let mut step = Step { work: ptr::from_ref(work).cast(), call: call::<W> };
        self.done.store(0, Ordering::Relaxed);
        self.step.store(&mut step, Ordering::Relaxed);
        let number = (self.ticket.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        let unfinished = Unfinished { shared: self, parts };
        // Publishes `step` and `done`.
        self.ticket.store(number << 32 | u64::from(count), Ordering::Release);
        while let Some((part, _)) = self.take() {
            let result = catch_unwind(AssertUnwindSafe(|| work(part)));
            self.done.fetch_add(1, Ordering::Release);
            if let Err(panic) = result {
                drop(unfinished);
                resume_unwind(panic);
            }
        }
        drop(unfinished);
        assert!(!self.panicked.load(Ordering::Relaxed), "a helper panicked in a step");
    }

    /// A part that is now this thread's to do, and the step that it belongs to.
    fn take(&self) -> Option<(usize, *const Step)> {
        let mut ticket = self.ticket.load(Ordering::Acquire);
        while ticket as u32 > 0 {
            let step = self.step.load(Ordering::Relaxed);
            match self.ticket.compare_exchange_weak(ticket, ticket - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some((ticket as u32 as usize - 1, step)),
                Err(now) => ticket = now,
            }
        }
        None
    }

    fn help(&self) {
        let mut spins = 0;
        loop {
            let Some((part, step)) = self.take() else {
                if self.closed.load(Ordering::Relaxed) {
                    return;
                }
                pause(&mut spins);
                continue;
            };
            spins = 0;
            // SAFETY: `step` was read between two reads of `ticket` that both showed this step with parts left, so it
            // is the pointer of this step: the next one's is stored only after all parts of this one were taken and
            // done, and taking happens before that by the release of `done`. The caller keeps the step and its closure
            // alive until `done` has counted this part, which it does below, after the call (`Unfinished`). The closure
            // is `Sync`, so it may be called from here.
            let result = catch_unwind(AssertUnwindSafe(|| unsafe { ((*step).call)((*step).work, part) }));
            if result.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }
}

fn pause(spins: &mut u32) {
    *spins += 1;
    if *spins < SPINS_BEFORE_YIELD {
        hint::spin_loop();
    } else {
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn every_part_of_every_step_is_done_once() {
        for threads in [1, 2, 5] {
            with_team(threads, |team| {
                for parts in [0, 1, 2, 3, 64, 1000] {
                    let calls: Vec<AtomicU32> = (0..parts).map(|_| AtomicU32::new(0)).collect();
                    team.for_each(parts, |part| {
                        calls[part].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(calls.iter().all(|calls| calls.load(Ordering::Relaxed) == 1), "{threads} {parts}");
                }
            });
        }
    }

    #[test]
    fn many_short_steps_see_what_earlier_steps_wrote() {
        with_team(3, |team| {
            let sum = AtomicUsize::new(0);
            for step in 0..20_000 {
                team.for_each(3, |part| {
                    assert!(sum.load(Ordering::Relaxed) >= step * 6);
                    sum.fetch_add(part + 1, Ordering::Relaxed);
                });
            }
            assert_eq!(sum.into_inner(), 120_000);
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_on_whichever_thread_it_happens() {
        for at in 0..8 {
            let result = catch_unwind(|| {
                with_team(3, |team| team.for_each(8, |part| assert_ne!(part, at, "part {at}")));
            });
            assert!(result.is_err());
        }
    }
}
