//! Answers by template, and one request at a time for each: who asks for what is being asked waits for that answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::{Instant, timeout_at};

use super::reply::Reply;

#[derive(Clone)]
struct Kept {
    reply: Arc<Reply>,
    at: Instant,
}

pub(super) struct AnswerCache {
    /// `None`: switched off.
    kept: Option<Cache<u64, Kept>>,
    ttl: Duration,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What the cache has done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CacheCounts {
    pub(super) hits: u64,
    pub(super) misses: u64,
}

impl AnswerCache {
    pub(super) fn new(capacity: usize, ttl: Duration) -> Self {
        let kept = (capacity > 0).then(|| Cache::new(capacity));
        AnswerCache { kept, ttl, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The kept answer and `true`, or what `ask` gives and `false`. Only answers are kept. When the one who asks gets
    /// none, or stops asking, the next of those who wait asks itself. `None` when the deadline comes while waiting.
    pub(super) async fn get_or_ask<E>(
        &self,
        key: u64,
        deadline: Instant,
        ask: impl Future<Output = Result<Reply, E>>,
    ) -> Option<Result<(Arc<Reply>, bool), E>> {
        let Some(cache) = &self.kept else {
            return Some(ask.await.map(|reply| (Arc::new(reply), false)));
        };
        let ttl = self.ttl;
        cache.remove_if(&key, |kept| kept.at.elapsed() >= ttl);
        match timeout_at(deadline, cache.get_value_or_guard_async(&key)).await.ok()? {
            Ok(kept) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                Some(Ok((kept.reply, true)))
            }
            Err(place) => {
                self.misses.fetch_add(1, Ordering::Relaxed);
                let reply = match ask.await {
                    Ok(reply) => Arc::new(reply),
                    Err(error) => return Some(Err(error)),
                };
                // It fails only when the place was taken away meanwhile; then the answer is not kept.
                place.insert(Kept { reply: Arc::clone(&reply), at: Instant::now() }).ok();
                Some(Ok((reply, false)))
            }
        }
    }

    pub(super) fn counts(&self) -> CacheCounts {
        CacheCounts { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const TTL: Duration = Duration::from_secs(60);

    fn reply(label: &str) -> Reply {
        Reply { label: label.into(), stated: 0.9, reason: String::new() }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    async fn get(
        cache: &AnswerCache,
        key: u64,
        answer: Result<&str, &'static str>,
    ) -> Result<(String, bool), &'static str> {
        let asked = cache.get_or_ask(key, soon(), async { answer.map(reply) }).await.expect("it is in time");
        asked.map(|(reply, cached)| (reply.label.to_string(), cached))
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_for_a_while_and_failures_are_not() {
        let cache = AnswerCache::new(8, TTL);
        assert_eq!(get(&cache, 1, Err("down")).await, Err("down"));
        assert_eq!(get(&cache, 1, Ok("a")).await, Ok(("a".to_owned(), false)));
        assert_eq!(get(&cache, 1, Ok("b")).await, Ok(("a".to_owned(), true)));
        assert_eq!(get(&cache, 2, Ok("b")).await, Ok(("b".to_owned(), false)));
        tokio::time::advance(TTL).await;
        assert_eq!(get(&cache, 1, Ok("c")).await, Ok(("c".to_owned(), false)));
        assert_eq!(cache.counts(), CacheCounts { hits: 1, misses: 4 });
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_bounded_and_may_be_off() {
        let cache = AnswerCache::new(4, TTL);
        for key in 0..1000 {
            get(&cache, key, Ok("a")).await.expect("it answers");
        }
        assert!(cache.kept.as_ref().is_some_and(|kept| kept.len() <= 8));
        let off = AnswerCache::new(0, TTL);
        get(&off, 1, Ok("a")).await.expect("it answers");
        assert_eq!(get(&off, 1, Ok("b")).await, Ok(("b".to_owned(), false)));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_the_same_wait_for_one_answer() {
        let (cache, asked) = (AnswerCache::new(8, TTL), AtomicUsize::new(0));
        let slow = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok::<_, ()>(reply("a"))
        };
        let (first, second, third) = tokio::join!(
            cache.get_or_ask(1, soon(), slow()),
            cache.get_or_ask(1, soon(), slow()),
            cache.get_or_ask(1, Instant::now() + Duration::from_millis(100), slow()),
        );
        assert_eq!(asked.into_inner(), 1);
        assert!(first.is_some_and(|first| first.is_ok_and(|(_, cached)| !cached)));
        assert!(second.is_some_and(|second| second.is_ok_and(|(_, cached)| cached)));
        assert!(third.is_none(), "its deadline comes first");
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_one_who_asks_stops_another_asks() {
        let cache = AnswerCache::new(8, TTL);
        let never = cache.get_or_ask(1, soon(), std::future::pending::<Result<Reply, ()>>());
        let (stopped, other) = tokio::join!(
            tokio::time::timeout(Duration::from_millis(100), never),
            cache.get_or_ask(1, soon(), async { Ok::<_, ()>(reply("a")) }),
        );
        assert!(stopped.is_err());
        assert!(other.is_some_and(|other| other.is_ok_and(|(_, cached)| !cached)));
    }
}
