//! The journal against torn writes, flipped bytes and failing disks.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use blockyard_wire::types::RequestId;

use super::*;
use crate::error::{Error, Kind};
use crate::journal::{FILE_BYTES_MIN, FOLDER, Tail, encode_command};
use crate::state::Command;

/// The plain system calls, failing on demand.
#[derive(Clone, Default)]
struct Plain {
    /// Calls until one fails, and with what; counts down.
    fail: Rc<Cell<Option<(u32, io::ErrorKind)>>>,
}

impl Plain {
    fn step(&self) -> io::Result<()> {
        match self.fail.get() {
            Some((0, kind)) => Err(kind.into()),
            Some((left, kind)) => {
                self.fail.set(Some((left - 1, kind)));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Log for Plain {
    type File = fs::File;

    async fn create(&self, path: &Path, bytes: u64) -> io::Result<fs::File> {
        self.step()?;
        let file = fs::File::create(path)?;
        file.set_len(bytes)?;
        Ok(file)
    }

    async fn write(&self, file: &fs::File, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        self.step()?;
        file.write_all_at(&bytes, offset)
    }

    async fn sync(&self, _: &fs::File) -> io::Result<()> {
        self.step()
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        fs::rename(from, to)
    }
}

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn command(number: u64) -> Command {
    Command::Mkdir {
        path: format!("/directory {number}"),
        parents: false,
        at_unix_ms: number,
        request: RequestId::default(),
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(FOLDER)).unwrap();
    dir
}

fn journal(dir: &Path, log: Plain, tail: Tail) -> Journal<Plain> {
    Journal::new(log, dir, CLUSTER, FILE_BYTES_MIN, tail.sequence, tail.place)
}

const EMPTY: Tail = Tail {
    place: Place {
        index: 1,
        previous_crc: 0,
    },
    term: 0,
    sequence: 0,
    bytes: 0,
    files: 0,
};

/// Appends groups of these sizes; the numbers of commands go on from `from`.
fn append(journal: &mut Journal<Plain>, term: u64, from: u64, groups: &[u64]) {
    let mut number = from;
    for &size in groups {
        let group: Vec<_> = (number..number + size)
            .map(|number| encode_command(&command(number)))
            .collect();
        run(journal.append(term, &group)).unwrap();
        number += size;
    }
}

fn read(dir: &Path, after: u64) -> Result<(Vec<u64>, Tail), Error> {
    let mut seen = Vec::new();
    let files = journal::files(dir)?;
    let tail = journal::replay(dir, CLUSTER, &files, after, &mut |index, found| {
        assert_eq!(found, command(index), "what comes out is what went in");
        seen.push(index);
        Ok(())
    })?;
    Ok((seen, tail))
}

#[test]
fn what_was_appended_comes_back_from_any_command_on() {
    let dir = folder();
    let mut writer = journal(dir.path(), Plain::default(), EMPTY);
    append(&mut writer, 1, 1, &[1, 3, 2]);
    assert_eq!(run(writer.rotate()).unwrap(), 1);
    append(&mut writer, 1, 7, &[2]);
    let (seen, tail) = read(dir.path(), 0).unwrap();
    assert_eq!(seen, (1..9).collect::<Vec<_>>());
    assert_eq!((tail.place, tail.sequence, tail.files), (writer.place, 2, 2));
    for after in 1..9 {
        let (seen, tail) = read(dir.path(), after).unwrap();
        assert_eq!(seen, (after + 1..9).collect::<Vec<_>>());
        assert_eq!(tail.place, writer.place);
    }
    // The next start goes on in a file of its own.
    let mut writer = journal(dir.path(), Plain::default(), tail);
    append(&mut writer, 2, 9, &[1]);
    let (seen, tail) = read(dir.path(), 0).unwrap();
    assert_eq!((seen.len(), tail.term, tail.sequence), (9, 2, 3));
    // The older files may go, once a snapshot holds them; not before, and not from the middle.
    fs::remove_file(dir.path().join(FOLDER).join(journal::file_name(1))).unwrap();
    assert_eq!(read(dir.path(), 6).unwrap().0, [7, 8, 9]);
    assert_eq!(read(dir.path(), 5).unwrap_err().kind(), Kind::Damaged);
    fs::copy(
        dir.path().join(FOLDER).join(journal::file_name(2)),
        dir.path().join(FOLDER).join(journal::file_name(5)),
    )
    .unwrap();
    assert_eq!(
        read(dir.path(), 6).unwrap_err().kind(),
        Kind::Damaged,
        "files 4 is missing"
    );
}

#[test]
fn every_file_that_is_full_is_followed_by_another() {
    let dir = folder();
    let mut writer = journal(dir.path(), Plain::default(), EMPTY);
    let long = Command::Mkdir {
        path: "x".repeat(900_000),
        parents: false,
        at_unix_ms: 0,
        request: RequestId::default(),
    };
    for _ in 0..5 {
        run(writer.append(1, &[encode_command(&long)])).unwrap();
    }
    assert_eq!(writer.sequence(), 3);
    let mut count = 0;
    let files = journal::files(dir.path()).unwrap();
    journal::replay(dir.path(), CLUSTER, &files, 0, &mut |_, _| {
        count += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(count, 5);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_tears() {
    let dir = folder();
    let path = dir.path().join(FOLDER).join(journal::file_name(1));
    let mut writer = journal(dir.path(), Plain::default(), EMPTY);
    append(&mut writer, 1, 1, &[2, 1]);
    let kept = writer.bytes() as usize + HEADER_BYTES;
    append(&mut writer, 1, 4, &[3]);
    let end = writer.bytes() as usize + HEADER_BYTES;
    let whole = fs::read(&path).unwrap();
    let place = {
        let mut torn = whole.clone();
        torn[kept..].fill(0);
        fs::write(&path, &torn).unwrap();
        read(dir.path(), 0).unwrap().1.place
    };
    // The padding behind the last frame says nothing, so its loss is none.
    for cut in kept..end - 8 {
        // Lost from `cut` on, as when the file was zeros; or all but what lies from there on.
        for front in [true, false] {
            let mut torn = whole.clone();
            if front {
                torn[cut..end].fill(0)
            } else {
                torn[kept..=cut].fill(0)
            }
            fs::write(&path, &torn).unwrap();
            let (seen, tail) = read(dir.path(), 0).unwrap();
            assert_eq!(
                (seen.len(), tail.place),
                (3, place),
                "cut at {cut}, front {front}"
            );
        }
    }
    // What was cut stays cut, though its bytes are there, once the next start has written behind it.
    let (_, tail) = read(dir.path(), 0).unwrap();
    let mut writer = journal(dir.path(), Plain::default(), tail);
    append(&mut writer, 2, 4, &[1, 1]);
    assert_eq!(read(dir.path(), 0).unwrap().0.len(), 5);
}

#[test]
fn any_flipped_byte_is_found_or_means_nothing() {
    let dir = folder();
    let path = dir.path().join(FOLDER).join(journal::file_name(1));
    let mut writer = journal(dir.path(), Plain::default(), EMPTY);
    append(&mut writer, 1, 1, &[2, 1]);
    let last = writer.bytes() as usize + HEADER_BYTES;
    append(&mut writer, 1, 4, &[2]);
    let end = writer.bytes() as usize + HEADER_BYTES;
    // Only what is written is kept for this, or each read would scan megabytes of zeros.
    let whole = fs::read(&path).unwrap()[..end + 64].to_vec();
    fs::write(&path, &whole).unwrap();
    let (seen, tail) = read(dir.path(), 0).unwrap();
    assert_eq!(seen.len(), 5);
    let mut refused = 0;
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, &flipped).unwrap();
        match read(dir.path(), 0) {
            Ok(found) if found.0.len() == 5 => assert_eq!(found, (seen.clone(), tail)),
            // A last frame that does not hold can't be told from a torn one: no valid one follows.
            Ok((found, _)) => assert!(at >= last && found.len() == 3, "byte {at}: {found:?}"),
            Err(error) => {
                assert!(at < last, "byte {at}: {error}");
                assert!(matches!(error.kind(), Kind::Damaged), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > last - HEADER_BYTES - 32, "{refused}");
    // With a file behind it, the last frame is no tail any more.
    fs::write(&path, &whole).unwrap();
    let mut writer = journal(dir.path(), Plain::default(), tail);
    append(&mut writer, 2, 6, &[1]);
    for at in last..end - 8 {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&path, &flipped).unwrap();
        match read(dir.path(), 0) {
            // Four bytes of a frame's header are kept for later.
            Ok((seen, _)) => assert!(
                (last + 36..last + 40).contains(&at) && seen.len() == 6,
                "byte {at}"
            ),
            Err(error) => assert_eq!(error.kind(), Kind::Damaged, "byte {at}"),
        }
    }
}

#[test]
fn a_failed_write_or_flush_latches() {
    // Calls of an append into an open file: write, sync.
    for step in 0..2 {
        let dir = folder();
        let log = Plain::default();
        let mut writer = journal(dir.path(), log.clone(), EMPTY);
        append(&mut writer, 1, 1, &[1]);
        log.fail.set(Some((step, io::ErrorKind::Other)));
        let group = [encode_command(&command(2))];
        assert!(matches!(run(writer.append(1, &group)), Err(Refused::Latched(_))));
        log.fail.set(None);
        assert!(
            matches!(run(writer.append(1, &group)), Err(Refused::Latched(_))),
            "a second try lies"
        );
        assert!(matches!(run(writer.rotate()), Err(Refused::Latched(_))));
        let (seen, _) = read(dir.path(), 0).unwrap();
        assert!(seen.len() <= 2 && seen[0] == 1);
    }
}

#[test]
fn no_space_is_no_failure() {
    let dir = folder();
    let log = Plain::default();
    let mut writer = journal(dir.path(), log.clone(), EMPTY);
    let group = |number| [encode_command(&command(number))];
    for step in 0..3 {
        log.fail.set(Some((step, io::ErrorKind::StorageFull)));
        assert!(
            matches!(run(writer.append(1, &group(1))), Err(Refused::NoSpace(_))),
            "making the first file"
        );
    }
    log.fail.set(None);
    run(writer.append(1, &group(1))).unwrap();
    log.fail.set(Some((0, io::ErrorKind::StorageFull)));
    assert!(matches!(
        run(writer.append(1, &group(2))),
        Err(Refused::NoSpace(_))
    ));
    log.fail.set(None);
    run(writer.append(1, &group(2))).unwrap();
    assert_eq!(read(dir.path(), 0).unwrap().0, [1, 2]);
}

#[test]
fn the_uring_log_is_one_too() {
    let dir = folder();
    let path = dir.path().to_owned();
    tokio_uring::start(async move {
        let mut writer = Journal::new(Uring, &path, CLUSTER, FILE_BYTES_MIN, 0, EMPTY.place);
        for number in 1..4 {
            writer
                .append(1, &[encode_command(&command(number))])
                .await
                .unwrap();
        }
        writer.rotate().await.unwrap();
        writer.append(1, &[encode_command(&command(4))]).await.unwrap();
    });
    assert_eq!(read(dir.path(), 0).unwrap().0, [1, 2, 3, 4]);
    let bytes = fs::metadata(dir.path().join(FOLDER).join(journal::file_name(1)))
        .unwrap()
        .len();
    assert_eq!(bytes, FILE_BYTES_MIN);
    assert!(matches!(read(dir.path(), 9), Ok((seen, tail)) if seen.is_empty() && tail.place.index == 10));
}
