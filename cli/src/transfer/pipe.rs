//! stdin and stdout as files, past the line buffers of the standard library.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// What a pipe may hold where the system lets it: fewer, larger reads and writes.
const PIPE_BYTES: usize = 1024 * 1024;

fn file_of(fd: impl AsFd) -> io::Result<File> {
    // Not a pipe, or more than the user may have: then it stays as it is.
    let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE_BYTES);
    fd.as_fd().try_clone_to_owned().map(File::from)
}

/// stdin.
///
/// # Errors
/// It is closed.
pub fn stdin() -> io::Result<tokio::fs::File> {
    file_of(io::stdin()).map(tokio::fs::File::from_std)
}

/// stdout, which remembers when nobody reads it any more.
pub struct Stdout {
    file: tokio::fs::File,
    broken: Arc<AtomicBool>,
}

/// Whether the reader of a [`Stdout`] has gone.
#[derive(Clone)]
pub struct Broken(Arc<AtomicBool>);

impl Broken {
    /// `error`, unless the transfer failed because who read it had enough: then that.
    pub fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        if self.0.load(Ordering::Relaxed) {
            return io::Error::from(io::ErrorKind::BrokenPipe).into();
        }
        error
    }
}

impl Stdout {
    /// Opens it.
    ///
    /// # Errors
    /// It is closed.
    pub fn open() -> io::Result<(Self, Broken)> {
        let broken = Arc::new(AtomicBool::new(false));
        let file = tokio::fs::File::from_std(file_of(io::stdout())?);
        Ok((
            Self {
                file,
                broken: broken.clone(),
            },
            Broken(broken),
        ))
    }

    fn note<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &outcome
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            self.broken.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl AsyncWrite for Stdout {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = ready!(Pin::new(&mut self.file).poll_write(cx, bytes));
        Poll::Ready(self.note(outcome))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = ready!(Pin::new(&mut self.file).poll_flush(cx));
        Poll::Ready(self.note(outcome))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
