//! Sends queued frames: header and payload of several in one call, no payload copied on the way.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use blockyard_wire::Problem;
use bytes::{Buf as _, Bytes};
use tokio::net::tcp::OwnedWriteHalf;

use super::connection::{Channel, Outgoing};
use super::put::PutState;

/// Frames and bytes of one batch at the most.
const FRAMES_MAX: usize = 32;
const BATCH_BYTES: usize = 512 * 1024;
/// Parts of one system call: a head and a payload for each frame.
const PARTS_MAX: usize = 2 * FRAMES_MAX;

/// Writes until the connection is lost, and says why.
pub async fn run(channel: &Channel, output: OwnedWriteHalf) -> Problem {
    let mut frames: Vec<Outgoing> = Vec::with_capacity(FRAMES_MAX);
    let mut parts: VecDeque<Bytes> = VecDeque::with_capacity(PARTS_MAX);
    let mut moving: Vec<Rc<PutState>> = Vec::new();
    loop {
        channel.take_outgoing(&mut frames, FRAMES_MAX, BATCH_BYTES).await;
        for frame in frames.drain(..) {
            parts.push_back(frame.head);
            if !frame.payload.is_empty() {
                parts.push_back(frame.payload);
            }
            moving.extend(frame.of);
        }
        while !parts.is_empty() {
            if let Err(error) = write_some(&output, &mut parts).await {
                return Problem::from(error).context(format!("sending to {}", channel.address));
            }
            let now = channel.write();
            moving.iter().for_each(|put| put.sent(now));
        }
        moving.clear();
    }
}

/// One write of as much as the socket takes.
async fn write_some(output: &OwnedWriteHalf, parts: &mut VecDeque<Bytes>) -> io::Result<()> {
    loop {
        output.writable().await?;
        let mut slices = [IoSlice::new(&[]); PARTS_MAX];
        for (slice, part) in slices.iter_mut().zip(&*parts) {
            *slice = IoSlice::new(part);
        }
        match output.try_write_vectored(&slices[..parts.len().min(PARTS_MAX)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(mut written) => {
                while let Some(part) = parts.front_mut() {
                    if written < part.len() {
                        part.advance(written);
                        break;
                    }
                    written -= part.len();
                    parts.pop_front();
                }
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
