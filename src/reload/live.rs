//! A value that is exchanged as a whole while others use it.
//!
//! Whoever works with it takes it once for a piece of work (a batch, a request) and keeps to it, so that no record sees half
//! of a change; what is no longer used by anybody is dropped.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// The value of now; cloning shares it.
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    pub fn new(value: T) -> Self {
        Live(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// The value of now, which stays what it is for whoever holds it.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Exchanges it: who asks from now on gets the new one.
    pub fn set(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Live(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.get()).finish()
    }
}
