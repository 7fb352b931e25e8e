//! Slow start: many equal calls in batches of 1, 2, 4, 8, …, so that a cause common to all fails once, not a thousand
//! times.

use futures::future::join_all;

/// Result of [`slow_start`].
#[derive(Debug)]
pub struct Batched<E> {
    /// Calls that succeeded.
    pub succeeded: usize,
    /// Calls that were made and failed.
    pub failed: usize,
    /// Calls that were not made.
    pub skipped: usize,
    /// The first error.
    pub error: Option<E>,
}

/// Makes `count` calls, numbered from 0; ends after the first batch with an error.
pub async fn slow_start<E, F>(count: usize, initial: usize, call: impl Fn(usize) -> F) -> Batched<E>
where
    F: Future<Output = Result<(), E>>,
{
    let mut result = Batched { succeeded: 0, failed: 0, skipped: count, error: None };
    let mut size = initial.max(1);
    let mut next = 0;
    while next < count {
        let batch = size.min(count - next);
        let outcomes = join_all((next..next + batch).map(&call)).await;
        next += batch;
        result.skipped -= batch;
        for outcome in outcomes {
            match outcome {
                Ok(()) => result.succeeded += 1,
                Err(error) => {
                    result.failed += 1;
                    result.error.get_or_insert(error);
                }
            }
        }
        if result.error.is_some() {
            break;
        }
        size = size.saturating_mul(2);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_ends_after_its_batch() {
        let all = slow_start(10, 1, |_| async { Ok::<_, ()>(()) }).await;
        assert_eq!((all.succeeded, all.failed, all.skipped), (10, 0, 0));
        // Batches are 0 | 1 2 | 3 4 5 6 | 7 8 9.
        let some = slow_start(10, 1, |i| async move { if i == 4 { Err(i) } else { Ok(()) } }).await;
        assert_eq!((some.succeeded, some.failed, some.skipped, some.error), (6, 1, 3, Some(4)));
        let none = slow_start(10, 1, |_| async { Err::<(), _>("no") }).await;
        assert_eq!((none.failed, none.skipped), (1, 9));
    }
}
