//! A nameserver's folder that holds many files from the start: for measuring what years of use would leave. Feature
//! `populated`.

use std::path::Path;

use blockyard_wire::types::{BlockId, ClusterId, Epoch, Incarnation, RequestId, VolumeId};

use crate::error::Error;
use crate::state::blocks::{VolumeIndex, VolumeRow};
use crate::state::{Command, NewRow, State};
use crate::store::Store;

/// Volumes that blocks are spread over; none of them is there.
const VOLUMES: u16 = 4;
/// Files of a folder.
const FOLDER_FILES: u64 = 2_000;
const BLOCK_BYTES: u32 = 64 * 1024;
const AT_UNIX_MS: u64 = 1_700_000_000_000;

/// Where the file of this number is: names of the length that people give, thousands in a folder.
pub fn path(number: u64) -> String {
    format!("/data/part-{:05}/image-{number:08}.jpg", number / FOLDER_FILES)
}

/// Makes the folder `dir` of a nameserver with so many files of one block of 64 KiB, each with two replicas: the state that
/// as many uploads would have led to.
///
/// # Errors
/// `Invalid` when `dir` holds a nameserver's data; `Io`.
pub fn populate(dir: &Path, files: u64) -> Result<(), Error> {
    let mut state = State::default();
    let epoch = Epoch {
        number: 1,
        incarnation: Incarnation([1; 16]),
    };
    state.apply(&Command::Reign {
        epoch,
        at_unix_ms: AT_UNIX_MS,
    })?;
    let volume = |number: u16| VolumeRow {
        id: VolumeId([number as u8 + 1; 16]),
        server: format!("192.0.2.{}:9001", number + 1),
        ..VolumeRow::default()
    };
    state.apply(&Command::Join {
        volumes: (0..VOLUMES).map(volume).collect(),
    })?;
    for number in 0..files {
        let first = (number % u64::from(VOLUMES)) as VolumeIndex;
        let crc32c = number as u32;
        let block = NewRow {
            block: BlockId(1 << 40 | (number + 1)),
            index: 0,
            length: BLOCK_BYTES,
            crc32c,
            volumes: vec![first, (first + 1) % VOLUMES],
        };
        state.apply(&Command::Publish {
            path: path(number),
            overwrite: false,
            replication: 2,
            content_type: "image/jpeg".to_owned(),
            blocks: vec![block],
            length_bytes: u64::from(BLOCK_BYTES),
            crc32c,
            at_unix_ms: AT_UNIX_MS + number,
            request: RequestId {
                client: 1 + number % 64,
                number,
            },
        })?;
    }
    let cluster = ClusterId([7; 16]);
    let made = Store::create(dir, cluster)?;
    Store::snapshot(&made.dirs, cluster, &state, crate::snapshot::KEPT_MIN)
}
