//! The journal against torn writes, flipped bytes and failing disks.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use blockyard_wire::types::RequestId;

use super::*;
use crate::error::{Error, Kind};
use crate::journal::{FILE_BYTES_MIN, FOLDER, encode_command};
use crate::replay::Tail;
use crate::state::Command;

/// The plain system calls, failing on demand.
#[derive(Clone, Default)]
pub(crate) struct Plain {
    /// Calls until one fails, and with what; counts down.
    fail: Rc<Cell<Option<(u32, io::ErrorKind)>>>,
    /// Folders that fail, and with what.
    bad: Rc<RefCell<BTreeMap<PathBuf, i32>>>,
}

/// A file that knows its folder.
pub(crate) struct In {
    file: fs::File,
    path: PathBuf,
}

impl Plain {
    /// The folder of everything at `path` fails from now on, with this code of the system.
    pub(crate) fn break_below(&self, path: &Path, errno: rustix::io::Errno) {
        self.bad
            .borrow_mut()
            .insert(path.to_owned(), errno.raw_os_error());
    }

    /// All goes well again.
    pub(crate) fn mend(&self) {
        self.bad.borrow_mut().clear();
        self.fail.set(None);
    }

    fn step_at(&self, path: &Path) -> io::Result<()> {
        let bad = self.bad.borrow();
        match bad.iter().find(|(dir, _)| path.starts_with(dir)) {
            Some((_, code)) => Err(io::Error::from_raw_os_error(*code)),
            None => self.step(),
        }
    }

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
    type File = In;

    async fn create(&self, path: &Path, bytes: u64) -> io::Result<In> {
        self.step_at(path)?;
        let file = fs::File::create(path)?;
        file.set_len(bytes)?;
        let path = path.to_owned();
        Ok(In { file, path })
    }

    async fn write(&self, file: &In, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        self.step_at(&file.path)?;
        file.file.write_all_at(&bytes, offset)
    }

    async fn sync(&self, file: &In) -> io::Result<()> {
        self.step_at(&file.path)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step_at(to)?;
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

/// In memory where the system has that: some of these are written thousands of times.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    fs::create_dir(dir.path().join(FOLDER)).unwrap();
    dir
}

fn journal(dir: &Path, log: Plain, tail: Tail) -> Journal<Plain> {
    Journal::new(
        log,
        &[dir.to_owned()],
        CLUSTER,
        FILE_BYTES_MIN,
        tail.sequence,
        tail.place,
    )
}

/// A journal of small files: what reads each of their bytes many times takes less long.
fn small(dir: &Path, tail: Tail) -> Journal<Plain> {
    let log = Plain::default();
    Journal::new(
        log,
        &[dir.to_owned()],
        CLUSTER,
        2 * PAGE_BYTES,
        tail.sequence,
        tail.place,
    )
}

/// Where the open file's next frame goes.
fn end_of(journal: &Journal<Plain>) -> usize {
    journal.open.unwrap().offset as usize
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
    let dirs = [dir.to_owned()];
    let files = replay::files(&dirs)?;
    let tail = replay::replay(&dirs, CLUSTER, &files, after, &mut |index, found| {
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
    fs::remove_file(dir.path().join(FOLDER).join(replay::file_name(1))).unwrap();
    assert_eq!(read(dir.path(), 6).unwrap().0, [7, 8, 9]);
    assert_eq!(read(dir.path(), 5).unwrap_err().kind(), Kind::Damaged);
    fs::copy(
        dir.path().join(FOLDER).join(replay::file_name(2)),
        dir.path().join(FOLDER).join(replay::file_name(5)),
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
    assert_eq!(writer.sequence(), 5, "one and its twin a file");
    let mut count = 0;
    let dirs = [dir.path().to_owned()];
    let files = replay::files(&dirs).unwrap();
    replay::replay(&dirs, CLUSTER, &files, 0, &mut |_, _| {
        count += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(count, 5);
}

#[test]
fn a_torn_tail_is_cut_wherever_it_tears() {
    let dir = folder();
    let path = dir.path().join(FOLDER).join(replay::file_name(1));
    let mut writer = small(dir.path(), EMPTY);
    append(&mut writer, 1, 1, &[2, 1]);
    let place = writer.place;
    let kept = end_of(&writer);
    append(&mut writer, 1, 4, &[3]);
    let end = end_of(&writer);
    let frame = (end - kept) / 2;
    let whole = fs::read(&path).unwrap();
    // Lost from `cut` on, as when the file was zeros; or all up to there.
    for cut in kept..end {
        for front in [true, false] {
            let mut torn = whole.clone();
            match front {
                true => torn[cut..end].fill(0),
                false => torn[kept..=cut].fill(0),
            }
            fs::write(&path, &torn).unwrap();
            let (seen, tail) = read(dir.path(), 0).unwrap();
            // Whichever of the two is whole counts. The padding behind a frame says nothing, so its loss is none.
            let padding = 7;
            let surely = match front {
                true => cut >= kept + frame,
                false => cut < kept + frame - padding,
            };
            match seen.len() {
                6 => assert_eq!(tail.place, writer.place, "cut at {cut}, front {front}"),
                3 => {
                    assert!(!surely, "cut at {cut}, front {front}");
                    assert_eq!(tail.place, place);
                }
                other => panic!("{other} commands, cut at {cut}, front {front}"),
            }
        }
    }
    // Lost in the middle of both: nothing is guessed from the rest.
    let mut torn = whole.clone();
    torn[kept + 16..kept + 24].fill(0);
    torn[kept + frame + 40..end].fill(0);
    fs::write(&path, &torn).unwrap();
    let (seen, tail) = read(dir.path(), 0).unwrap();
    assert_eq!((seen.len(), tail.place), (3, place));
    // What was cut stays cut, though its bytes are there, once the next start has written behind it.
    let mut writer = small(dir.path(), tail);
    append(&mut writer, 2, 4, &[1, 1]);
    assert_eq!(read(dir.path(), 0).unwrap().0.len(), 5);
    // What the next file's header calls the end is the end, whatever a write that was refused has left behind it.
    fs::write(&path, &whole).unwrap();
    let (seen, tail) = read(dir.path(), 0).unwrap();
    assert_eq!((seen.len(), tail.place), (5, writer.place));
}

#[test]
fn any_flipped_byte_is_made_good_and_a_file_cut_short_is_refused() {
    let dir = folder();
    let path = dir.path().join(FOLDER).join(replay::file_name(1));
    let mut writer = small(dir.path(), EMPTY);
    append(&mut writer, 1, 1, &[2, 1]);
    append(&mut writer, 1, 4, &[2]);
    let whole = fs::read(&path).unwrap();
    let found = read(dir.path(), 0).unwrap();
    assert_eq!(found.0.len(), 5);
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= if at % 2 == 0 { 1 << (at % 8) } else { 0xff };
        fs::write(&path, &flipped).unwrap();
        assert_eq!(read(dir.path(), 0).unwrap(), found, "byte {at}");
        fs::write(&path, &whole[..at]).unwrap();
        let error = read(dir.path(), 0).unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "cut at {at}: {error}");
    }
    // Two bad places, one in a frame and one in its twin: in the middle that is damage.
    let frame = journal::frame_bytes(&[1, 2].map(|number| encode_command(&command(number))));
    let mut flipped = whole.clone();
    flipped[HEADER_BYTES + 50] ^= 1;
    flipped[HEADER_BYTES + frame + 50] ^= 1;
    fs::write(&path, &flipped).unwrap();
    let error = read(dir.path(), 0).unwrap_err();
    assert!(error.to_string().contains("damaged at byte 4096"), "{error}");
}

#[test]
fn files_of_format_1_are_read() {
    let dir = folder();
    let path = dir.path().join(FOLDER).join(replay::file_name(1));
    let header = Header {
        format: 1,
        cluster: CLUSTER,
        sequence: 1,
        seed: 77,
        first: EMPTY.place,
        pages: 0,
    };
    let mut file = header.encode();
    assert!(file[HEADER_BYTES / 2..].iter().all(|byte| *byte == 0));
    let mut place = EMPTY.place;
    for numbers in [1..3, 3..4, 4..7] {
        let group: Vec<_> = numbers.map(|number| encode_command(&command(number))).collect();
        let (frame, crc) = journal::encode_frame(header.seed, 1, place, &group);
        file.extend(frame);
        place = Place {
            index: place.index + group.len() as u64,
            previous_crc: crc,
        };
    }
    let last = file.len();
    file.resize(last + 512, 0);
    fs::write(&path, &file).unwrap();
    let (seen, tail) = read(dir.path(), 0).unwrap();
    assert_eq!((seen, tail.place), ((1..7).collect(), place));
    // Damage before the last frame shows; in the last one it could not be told from a torn write.
    for at in HEADER_BYTES..HEADER_BYTES + 36 {
        let mut flipped = file.clone();
        flipped[at] ^= 4;
        fs::write(&path, &flipped).unwrap();
        assert_eq!(
            read(dir.path(), 0).unwrap_err().kind(),
            Kind::Damaged,
            "byte {at}"
        );
    }
    fs::write(&path, &file).unwrap();
    // The journal goes on in the newer format.
    let mut writer = small(dir.path(), tail);
    append(&mut writer, 2, 7, &[2]);
    assert_eq!(read(dir.path(), 0).unwrap().0, (1..9).collect::<Vec<_>>());
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

/// Two folders, and a writer into both.
fn pair() -> (tempfile::TempDir, Vec<PathBuf>, Plain, Journal<Plain>) {
    let dir = tempfile::tempdir().unwrap();
    let dirs = vec![dir.path().join("one"), dir.path().join("two")];
    for dir in &dirs {
        fs::create_dir_all(dir.join(FOLDER)).unwrap();
    }
    let log = Plain::default();
    let writer = Journal::new(log.clone(), &dirs, CLUSTER, 2 * PAGE_BYTES, 0, EMPTY.place);
    (dir, dirs, log, writer)
}

fn read_both(dirs: &[PathBuf]) -> Vec<u64> {
    let mut seen = Vec::new();
    let files = replay::files(dirs).unwrap();
    replay::replay(dirs, CLUSTER, &files, 0, &mut |index, found| {
        assert_eq!(found, command(index));
        seen.push(index);
        Ok(())
    })
    .unwrap();
    seen
}

#[test]
fn one_folder_that_fails_is_left_behind() {
    for errno in [rustix::io::Errno::IO, rustix::io::Errno::NOSPC] {
        for bad in [0, 1] {
            let (_dir, dirs, log, mut writer) = pair();
            append(&mut writer, 1, 1, &[1]);
            assert_eq!((writer.live().len(), writer.trouble()), (2, String::new()));
            log.break_below(&dirs[bad], errno);
            append(&mut writer, 1, 2, &[2]);
            assert_eq!(writer.live(), [dirs[1 - bad].clone()]);
            let trouble = writer.trouble();
            assert!(trouble.contains(&dirs[bad].display().to_string()), "{trouble}");
            run(writer.rotate()).unwrap();
            // It is left alone though it may work again: it lacks what came meanwhile.
            log.bad.borrow_mut().clear();
            append(&mut writer, 1, 4, &[1]);
            assert_eq!(writer.live().len(), 1);
            assert_eq!(read_both(&dirs), [1, 2, 3, 4]);
            assert_eq!(read_both(&dirs[1 - bad..2 - bad]), [1, 2, 3, 4]);
            assert_eq!(read_both(&dirs[bad..=bad]), [1]);
        }
    }
}

#[test]
fn what_both_refuse_is_refused() {
    let (_dir, dirs, log, mut writer) = pair();
    append(&mut writer, 1, 1, &[1]);
    let group = |number| [encode_command(&command(number))];
    // No room in one, a broken disk in the other: nothing is acknowledged, and the broken one is left behind.
    log.break_below(&dirs[0], rustix::io::Errno::IO);
    log.break_below(&dirs[1], rustix::io::Errno::NOSPC);
    assert!(matches!(
        run(writer.append(1, &group(2))),
        Err(Refused::NoSpace(_))
    ));
    assert_eq!(writer.live(), dirs[1..]);
    log.bad.borrow_mut().clear();
    // The broken one may hold what was refused; what comes now is the truth.
    let (torn, _) = journal::encode_frame(writer_seed(&dirs[0]), 1, writer.place, &group(99));
    let path = dirs[0].join(FOLDER).join(replay::file_name(1));
    let file = fs::File::options().write(true).open(path).unwrap();
    let offset = HEADER_BYTES + 2 * journal::frame_bytes(&group(1));
    file.write_all_at(&[torn.clone(), torn].concat(), offset as u64)
        .unwrap();
    append(&mut writer, 1, 2, &[1]);
    assert_eq!(read_both(&dirs), [1, 2]);
    log.break_below(&dirs[1], rustix::io::Errno::IO);
    assert!(matches!(
        run(writer.append(1, &group(3))),
        Err(Refused::Latched(_))
    ));
    assert!(writer.live().is_empty());
}

fn writer_seed(dir: &Path) -> u32 {
    let page = fs::read(dir.join(FOLDER).join(replay::file_name(1))).unwrap();
    Header::decode(&page).unwrap().seed
}

#[test]
fn a_broken_disk_latches_where_a_file_is_made_and_no_room_does_not() {
    for (errno, latches) in [
        (rustix::io::Errno::IO, true),
        (rustix::io::Errno::ROFS, true),
        (rustix::io::Errno::NOSPC, false),
        (rustix::io::Errno::FBIG, false),
        (rustix::io::Errno::MFILE, false),
    ] {
        let dir = folder();
        let log = Plain::default();
        let mut writer = journal(dir.path(), log.clone(), EMPTY);
        log.break_below(dir.path(), errno);
        let refused = run(writer.append(1, &[encode_command(&command(1))])).unwrap_err();
        assert_eq!(
            matches!(refused, Refused::Latched(_)),
            latches,
            "{errno}: {refused:?}"
        );
        log.bad.borrow_mut().clear();
        let again = run(writer.append(1, &[encode_command(&command(1))]));
        assert_eq!(again.is_err(), latches, "{errno}");
    }
}

#[test]
fn the_uring_log_is_one_too() {
    let dir = folder();
    let path = dir.path().to_owned();
    tokio_uring::start(async move {
        let mut writer = Journal::new(Uring, &[path], CLUSTER, FILE_BYTES_MIN, 0, EMPTY.place);
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
    let bytes = fs::metadata(dir.path().join(FOLDER).join(replay::file_name(1)))
        .unwrap()
        .len();
    assert_eq!(bytes, FILE_BYTES_MIN);
    assert!(matches!(read(dir.path(), 9), Ok((seen, tail)) if seen.is_empty() && tail.place.index == 10));
}
