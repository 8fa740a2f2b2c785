//! Answers that would go on longer than this process does.
//!
//! Invariant: when the grace time of a drain is nearly over, a stream ends with an
//! error that says so, before its connection is broken off.

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use mesh::error::{Kind, status};
use std::time::Duration;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// For the last words to reach the client.
const MARGIN: Duration = Duration::from_millis(500);

/// When this process goes.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// Cancelled when the grace time begins.
    pub drain: CancellationToken,
    pub grace: Duration,
}

type Events<E> = BoxStream<'static, Result<E, Status>>;

impl Leaving {
    pub fn end<E: Send + 'static>(&self, events: Events<E>) -> Events<E> {
        let Self { drain, grace } = self.clone();
        let over = async move {
            drain.cancelled().await;
            time::sleep(grace.saturating_sub(MARGIN)).await;
        };
        let parts = Some((events, Box::pin(over)));
        stream::unfold(parts, |parts| async {
            let (mut events, mut over) = parts?;
            tokio::select! {
                biased;
                event = events.next() => Some((event?, Some((events, over)))),
                () = &mut over => Some((Err(gone()), None)),
            }
        })
        .boxed()
    }
}

fn gone() -> Status {
    let message = "this gateway is being replaced and the answer did not end in time; ask again";
    status(Kind::Unavailable, Some("GATEWAY_LEAVING"), None, message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_endless_answer_ends_with_an_error_shortly_before_the_process() {
        let (drain, grace) = (CancellationToken::new(), Duration::from_secs(5));
        let leaving = Leaving { drain: drain.clone(), grace };
        let whole = leaving.end(stream::empty::<Result<(), _>>().boxed()).count().await;
        assert_eq!(whole, 0);
        let mut endless = leaving.end(stream::pending::<Result<(), _>>().boxed());
        drain.cancel();
        let begun = time::Instant::now();
        let last = endless.next().await.unwrap().unwrap_err();
        assert_eq!(last.code(), tonic::Code::Unavailable);
        assert!(begun.elapsed() < grace);
        assert!(endless.next().await.is_none());
    }
}
