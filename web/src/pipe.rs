//! A request's body on its way to another thread: bounded, and never mistaken for whole when it broke off.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;

/// Pieces under way. A piece is what hyper read at once: at most its buffer, 256 KiB.
const PIECES_MAX: usize = 16;

enum Piece {
    Data(Bytes),
    End,
}

/// The end that is filled. Dropping it without [`BodyWriter::finish`] makes the reader fail.
pub(crate) struct BodyWriter(mpsc::Sender<Piece>);

/// The end that is read. The end of the body is told apart from a body that broke off, which is an error.
pub struct BodyReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

/// The reader has been dropped: nobody wants the body any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unwanted;

/// A pipe of at most [`PIECES_MAX`] pieces.
pub(crate) fn pipe() -> (BodyWriter, BodyReader) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    let reader = BodyReader {
        pieces,
        current: Bytes::new(),
        ended: false,
    };
    (BodyWriter(sender), reader)
}

impl BodyWriter {
    /// Hands a piece on, waiting while the pipe is full.
    pub(crate) async fn send(&self, data: Bytes) -> Result<(), Unwanted> {
        // An empty piece would read as the end of the body.
        if data.is_empty() {
            return Ok(());
        }
        self.0.send(Piece::Data(data)).await.map_err(|_| Unwanted)
    }

    /// Says that the body is whole.
    pub(crate) async fn finish(self) -> Result<(), Unwanted> {
        self.0.send(Piece::End).await.map_err(|_| Unwanted)
    }
}

impl AsyncRead for BodyReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Fill as much as is there: small reads would cost the storing side dear.
        let before = into.filled().len();
        while into.remaining() > 0 && !self.ended {
            if self.current.is_empty() {
                match self.pieces.poll_recv(context) {
                    Poll::Ready(Some(Piece::Data(data))) => self.current = data,
                    Poll::Ready(Some(Piece::End)) => self.ended = true,
                    // What came before the break is handed out first; the next poll finds it again.
                    Poll::Ready(None) if into.filled().len() > before => break,
                    Poll::Ready(None) => {
                        return Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "the upload broke off before its end",
                        )));
                    }
                    Poll::Pending if into.filled().len() > before => break,
                    Poll::Pending => return Poll::Pending,
                }
            } else {
                let take = self.current.len().min(into.remaining());
                into.put_slice(&self.current[..take]);
                self.current.advance(take);
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_finished_body_reads_whole() {
        let (writer, mut reader) = pipe();
        writer.send(Bytes::from_static(b"block")).await.unwrap();
        writer.send(Bytes::new()).await.unwrap();
        writer.send(Bytes::from_static(b"yard")).await.unwrap();
        writer.finish().await.unwrap();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"blockyard");
        // An end stays an end.
        assert_eq!(reader.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_broken_body_is_an_error_not_an_end() {
        let (writer, mut reader) = pipe();
        writer.send(Bytes::from_static(b"half")).await.unwrap();
        drop(writer);
        let mut all = Vec::new();
        let error = reader.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_reader_that_left_is_noticed() {
        let (writer, reader) = pipe();
        drop(reader);
        assert_eq!(writer.send(Bytes::from_static(b"x")).await, Err(Unwanted));
    }
}
