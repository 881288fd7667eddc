//! A volume driven as a runtime drives it: by the eventfd, beside the tasks that use it.

mod common;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use blockyard_engine::block::BlockId;
use blockyard_engine::{CompletionWait, Error, Lane};
use common::{MIB, Yard, content, put_bytes};
use rustix::event::{PollFd, PollFlags, Timespec};

/// Polls the descriptor whenever it is polled itself; counts how often it was readable.
#[derive(Default)]
struct Poller {
    signals: Cell<u32>,
}

impl CompletionWait for &Poller {
    async fn readable(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        poll_fn(|_| {
            // A bounded wait, as the test's loop has nothing else to do; it ends early when the ring signals.
            let timeout = Timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            match rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => Poll::Pending,
                Ok(_) => {
                    self.signals.set(self.signals.get() + 1);
                    Poll::Ready(Ok(()))
                }
                Err(errno) => Poll::Ready(Err(errno.into())),
            }
        })
        .await
    }
}

/// Polls both, over and over, until the second has ended; what the first has come to by then.
fn beside<A: Future, B: Future>(first: A, second: B) -> (Option<A::Output>, B::Output) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let mut context = Context::from_waker(Waker::noop());
    let mut ended = None;
    loop {
        if let Poll::Ready(output) = second.as_mut().poll(&mut context) {
            if ended.is_none()
                && let Poll::Ready(output) = first.as_mut().poll(&mut context)
            {
                ended = Some(output);
            }
            return (ended, output);
        }
        if ended.is_none()
            && let Poll::Ready(output) = first.as_mut().poll(&mut context)
        {
            ended = Some(output);
        }
    }
}

#[test]
fn the_driver_serves_until_the_volume_is_closed() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    let poller = Poller::default();
    let (driven, ()) = beside(volume.drive(&poller), async {
        for block in 0..20 {
            let bytes = content(block, 1 + block as usize * 50_000);
            put_bytes(&volume, block, &bytes).await.unwrap();
            let verified = volume
                .get(BlockId(block), 0, bytes.len() as u32, Lane::Read)
                .await
                .unwrap();
            assert!(verified.data == bytes);
        }
        assert_eq!(volume.delete(&[BlockId(3)]).await.unwrap(), [(BlockId(3), true)]);
        volume.checkpoint().await.unwrap();
        volume.close().await.unwrap();
        assert!(matches!(volume.checkpoint().await, Err(Error::Closed)));
    });
    driven.expect("the driver ends with the volume").unwrap();
    assert!(poller.signals.get() > 0, "the ring never signalled");
    drop(volume);
    assert_eq!(yard.open().0.stat().replicas, 19);
}

#[test]
fn a_driver_may_be_dropped_and_another_goes_on() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    for block in 0..5 {
        let poller = Poller::default();
        let bytes = content(block, 300_000);
        let (ended, put) = beside(volume.drive(&poller), put_bytes(&volume, block, &bytes));
        assert!(ended.is_none() && put.is_ok());
    }
    assert_eq!(volume.list(None, 10).len(), 5);
}
