//! A volume over real files: what was acknowledged is there, what is damaged is never returned.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use blockyard_engine::block::BlockId;
use blockyard_engine::checksum::crc;
use blockyard_engine::{Epoch, Error, Kind, Lane, Options, ReplicaState, Volume, VolumeState, exec};
use common::{CLUSTER, MIB, Yard, assert_block, content, get, put, put_bytes};

const UNIT: usize = 64 * 1024;
const WHOLE: usize = 4 << 20;

/// Lengths around every edge of the layout.
const LENGTHS: [usize; 17] = [
    1,
    3967,
    3968,
    3969,
    4095,
    4096,
    4097,
    16255,
    16256,
    16257,
    UNIT - 1,
    UNIT,
    UNIT + 1,
    3 * UNIT + 5,
    1_000_000,
    WHOLE - 1,
    WHOLE,
];

#[test]
fn blocks_of_every_length_come_back_also_after_restarts() {
    let yard = Yard::new(256 * MIB);
    let (volume, report) = yard.open();
    assert_eq!((report.replicas, report.torn_tail_cut), (0, false));
    for (block, length) in (1..).zip(LENGTHS) {
        let receipt = put(&volume, block, length).unwrap();
        assert_eq!((receipt.length, receipt.already_had), (length as u32, false));
        assert_eq!(receipt.crc32c, crc(&content(block, length)));
        assert_block(&volume, block, length);
    }
    for clean in [false, true, true] {
        if clean {
            exec::run(&volume, volume.close()).unwrap();
        }
    }
    drop(volume);
    let (volume, report) = yard.open();
    assert_eq!(
        (report.replicas, report.replayed_records),
        (LENGTHS.len() as u64, 0)
    );
    for (block, length) in (1..).zip(LENGTHS) {
        assert_block(&volume, block, length);
    }
    // The same without closing.
    put(&volume, 99, WHOLE).unwrap();
    drop(volume);
    let (volume, report) = yard.open();
    assert!(
        report.replayed_records >= 1 && report.suspects.is_empty(),
        "{report:?}"
    );
    assert_block(&volume, 99, WHOLE);
    assert_eq!(volume.list(None, 100).len(), LENGTHS.len() + 1);
}

#[test]
fn ranges_are_whole_verified_units() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    let length = 5 * UNIT + 100;
    put(&volume, 1, length).unwrap();
    let whole = content(1, length);
    let ranges = [
        (0, 1),
        (UNIT - 1, 2),
        (UNIT, UNIT),
        (3 * UNIT + 7, 2 * UNIT),
        (length - 1, 1),
        (5 * UNIT, 100),
    ];
    for (offset, count) in ranges {
        let bytes = get(&volume, 1, offset as u32, count as u32).unwrap();
        assert!(bytes == whole[offset..offset + count], "{offset}+{count}");
        let verified = exec::run(
            &volume,
            volume.get(BlockId(1), offset as u32, count as u32, Lane::Read),
        )
        .unwrap();
        assert_eq!(verified.offset as usize, offset / UNIT * UNIT);
        assert_eq!(
            (verified.block_length, verified.block_crc32c),
            (length as u32, crc(&whole))
        );
    }
    for (offset, count) in [
        (0, 0),
        (length as u32, 1),
        (0, length as u32 + 1),
        (u32::MAX, u32::MAX),
    ] {
        let error = exec::run(&volume, volume.get(BlockId(1), offset, count, Lane::Read)).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
    }
    assert_eq!(get(&volume, 2, 0, 1).unwrap_err().kind(), Kind::OtherReplica);
}

#[test]
fn a_block_is_immutable() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    put(&volume, 1, 5000).unwrap();
    assert!(put(&volume, 1, 5000).unwrap().already_had);
    for other in [content(2, 5000), content(1, 4999)] {
        let error = exec::run(&volume, put_bytes(&volume, 1, &other)).unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
    }
    // Two at once: one writes, the other hears of it.
    exec::run(&volume, async {
        let bytes = content(3, WHOLE);
        let mut first = volume.acquire(Lane::Head, WHOLE as u32).await.unwrap();
        let mut second = volume.acquire(Lane::Head, WHOLE as u32).await.unwrap();
        first.fill(&bytes).unwrap();
        second.fill(&bytes).unwrap();
        let (one, two) = join(
            volume.put(BlockId(3), common::ORIGIN, first),
            volume.put(BlockId(3), common::ORIGIN, second),
        )
        .await;
        assert_eq!(
            (one.unwrap().already_had, two.unwrap().already_had),
            (false, true)
        );
    });
    assert_eq!(volume.stat().puts, 2);
}

async fn join<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut left, mut right) = (None, None);
    std::future::poll_fn(|context| {
        if left.is_none() {
            left = ready(a.as_mut().poll(context));
        }
        if right.is_none() {
            right = ready(b.as_mut().poll(context));
        }
        if left.is_some() && right.is_some() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    (left.unwrap(), right.unwrap())
}

fn ready<T>(poll: std::task::Poll<T>) -> Option<T> {
    match poll {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn deleted_blocks_stay_deleted_and_their_slots_are_used_again() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    for round in 0..20 {
        for block in 0..3 {
            put(&volume, round * 10 + block, WHOLE).unwrap();
        }
        let ids: Vec<BlockId> = (0..4).map(|block| BlockId(round * 10 + block)).collect();
        let gone = exec::run(&volume, volume.delete(&ids)).unwrap();
        assert_eq!(
            gone.iter().map(|&(_, was)| was).collect::<Vec<_>>(),
            [true, true, true, false]
        );
        assert_eq!(
            get(&volume, round * 10, 0, 1).unwrap_err().kind(),
            Kind::OtherReplica
        );
    }
    assert!(volume.stat().segments <= 3);
    drop(volume);
    let (volume, report) = yard.open();
    assert_eq!((report.replicas, volume.stat().used_bytes), (0, 0));
}

#[test]
fn a_full_volume_refuses_and_deletes_make_room() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    let mut blocks = 0;
    let error = loop {
        match put(&volume, blocks, WHOLE) {
            Ok(_) => blocks += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error.kind(), volume.stat().state),
        (Kind::NoSpace, VolumeState::Full)
    );
    assert!(blocks >= 12, "{blocks}");
    exec::run(&volume, volume.delete(&[BlockId(0)])).unwrap();
    assert_eq!(volume.stat().state, VolumeState::Serving);
    // An empty segment serves other lengths as well.
    for block in 0..50 {
        put(&volume, 1000 + block, 20_000).unwrap();
    }
    assert_eq!(put(&volume, 5000, WHOLE).unwrap_err().kind(), Kind::NoSpace);
    let small: Vec<BlockId> = (1000..1050).map(BlockId).collect();
    exec::run(&volume, volume.delete(&small)).unwrap();
    put(&volume, 5000, WHOLE).unwrap();
    drop(volume);
    let (volume, _) = yard.open();
    assert_block(&volume, 5000, WHOLE);
    (1..blocks).for_each(|block| assert_block(&volume, block, WHOLE));
}

/// Flips a bit wherever `needle` stands in a segment.
fn flip(yard: &Yard, needle: &[u8], at: usize) {
    let mut flipped = 0;
    for path in yard.segments() {
        let bytes = fs::read(&path).unwrap();
        if let Some(found) = bytes.windows(needle.len()).position(|window| window == needle) {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[found + at] ^ 0x10], (found + at) as u64)
                .unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1);
}

#[test]
fn damage_in_data_or_header_is_never_returned_and_is_remembered() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    for block in 1..=4 {
        put(&volume, block, 3 * UNIT).unwrap();
    }
    exec::run(&volume, volume.close()).unwrap();
    drop(volume);
    // Data of 1, the id in the header of 2, nothing of 3.
    flip(&yard, &content(1, 3 * UNIT)[UNIT..UNIT + 64], 5);
    let mut header = 2u64.to_le_bytes().to_vec();
    header.extend_from_slice(&7u64.to_le_bytes());
    flip(&yard, &header, 9);
    let (volume, report) = yard.open();
    assert!(report.suspects.is_empty());
    // A range that misses the damage is fine; one that meets it takes the replica out of service.
    assert!(get(&volume, 1, 0, 100).is_ok());
    for block in [1, 2] {
        let error = get(&volume, block, 0, 3 * UNIT as u32).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(matches!(get(&volume, block, 0, 1), Err(Error::Corrupt { .. })));
        assert_eq!(
            volume.lookup(BlockId(block)).unwrap().state,
            ReplicaState::Corrupt
        );
    }
    assert_block(&volume, 3, 3 * UNIT);
    assert_eq!(volume.stat().corrupt, 2);
    assert!(exec::run(&volume, volume.mark_corrupt(BlockId(4))).unwrap());
    assert!(!exec::run(&volume, volume.mark_corrupt(BlockId(40))).unwrap());
    drop(volume);
    // Remembered through a restart, and healed by the same content.
    let (volume, _) = yard.open();
    assert_eq!(volume.stat().corrupt, 3);
    for block in [1, 2, 4] {
        assert!(!put(&volume, block, 3 * UNIT).unwrap().already_had);
        assert_block(&volume, block, 3 * UNIT);
    }
    assert_eq!((volume.stat().corrupt, volume.stat().replicas), (0, 4));
    drop(volume);
    let (volume, _) = yard.open();
    assert_block(&volume, 2, 3 * UNIT);
}

#[test]
fn one_process_one_cluster_one_folder() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    assert!(matches!(yard.try_open(), Err(Error::Locked { .. })));
    exec::run(&volume, volume.close()).unwrap();
    // Closed, though the handle is still there: the lock is free.
    let error = exec::run(&volume, volume.get(BlockId(1), 0, 1, Lane::Read)).unwrap_err();
    assert!(matches!(error, Error::Closed));
    let other = Volume::open(yard.options.clone(), Some([9; 16]))
        .map(drop)
        .unwrap_err();
    assert!(matches!(other, Error::OtherCluster { .. }), "{other}");
    let (again, _) = yard.open();
    assert!(again.identity().generation >= 2 && again.identity().cluster == CLUSTER);
    let empty = tempfile::tempdir().unwrap();
    let missing = Volume::open(Options::new(empty.path()), None)
        .map(drop)
        .unwrap_err();
    assert!(matches!(missing, Error::NotAVolume { .. }));
}

#[test]
fn epochs_only_rise() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    let epoch = |number, mark| Epoch {
        number,
        incarnation: [mark; 16],
    };
    let raise = |volume: &Volume, to| exec::run(volume, volume.raise_epoch(to));
    assert_eq!(volume.epoch(), None);
    raise(&volume, epoch(5, 1)).unwrap();
    raise(&volume, epoch(5, 1)).unwrap();
    assert!(matches!(
        raise(&volume, epoch(4, 1)),
        Err(Error::StaleEpoch { given: 4, seen: 5 })
    ));
    assert!(matches!(
        raise(&volume, epoch(5, 2)),
        Err(Error::TwinEpoch { number: 5 })
    ));
    drop(volume);
    let (volume, _) = yard.open();
    assert_eq!(volume.epoch(), Some(epoch(5, 1)));
    raise(&volume, epoch(6, 2)).unwrap();
    exec::run(&volume, volume.close()).unwrap();
    drop(volume);
    assert_eq!(yard.open().0.epoch(), Some(epoch(6, 2)));
}

#[test]
fn the_journal_goes_around_under_checkpoints() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    // One page a record: the journal of 256 pages goes around several times.
    for block in 0..900 {
        put(&volume, block, 10).unwrap();
        if block % 3 != 0 {
            exec::run(&volume, volume.delete(&[BlockId(block)])).unwrap();
        }
    }
    assert!(volume.stat().checkpoints > 3);
    drop(volume);
    let (volume, report) = yard.open();
    assert_eq!(
        (report.replicas, volume.list(Some(BlockId(30)), 2).len()),
        (300, 2)
    );
    assert_eq!(volume.list(Some(BlockId(30)), 2)[0].block, BlockId(33));
    (0..900)
        .step_by(3)
        .for_each(|block| assert_block(&volume, block, 10));
}

#[test]
fn garbage_in_place_of_files_is_told_not_guessed() {
    let damage = |spoil: &dyn Fn(&Yard)| {
        let yard = Yard::new(64 * MIB);
        let (volume, _) = yard.open();
        for block in 0..10 {
            put(&volume, block, 1000).unwrap();
        }
        drop(volume);
        spoil(&yard);
        yard.try_open().map(|(volume, report)| (volume.stat(), report))
    };
    let error =
        damage(&|yard| fs::write(yard.dir.path().join("volume.toml"), "\0garbage").unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::Fatal);
    let error =
        damage(&|yard| fs::remove_file(yard.dir.path().join("journal/0002.jnl")).unwrap()).unwrap_err();
    assert!(error.to_string().contains("journal"), "{error}");
    // The journal's middle: a whole batch behind a bad one.
    let error = damage(&|yard| {
        let file = OpenOptions::new()
            .write(true)
            .open(yard.dir.path().join("journal/0000.jnl"))
            .unwrap();
        file.write_all_at(&[0xff; 512], 3 * 4096).unwrap();
    })
    .unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let error = damage(&|yard| {
        for entry in fs::read_dir(yard.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("checkpoint-0")
            {
                fs::write(path, [7; 70_000]).unwrap();
            }
        }
    })
    .unwrap_err();
    assert!(error.to_string().contains("checkpoint"), "{error}");
    // A missing segment costs its replicas, not the volume.
    let (stat, report) = damage(&|yard| fs::remove_file(&yard.segments()[0]).unwrap()).unwrap();
    assert_eq!((stat.replicas, stat.corrupt), (10, 10));
    assert!(
        report.notes.iter().any(|note| note.contains("missing")),
        "{report:?}"
    );
}

#[test]
fn dropping_a_put_does_not_stop_it_nor_harm_the_volume() {
    let yard = Yard::new(64 * MIB);
    let (volume, _) = yard.open();
    for block in 0..20 {
        exec::run(&volume, async {
            let mut buffer = volume.acquire(Lane::Head, WHOLE as u32).await.unwrap();
            buffer.fill(&content(block % 4, WHOLE)).unwrap();
            let mut put = Box::pin(volume.put(BlockId(block % 4), common::ORIGIN, buffer));
            std::future::poll_fn(|context| {
                let _ = put.as_mut().poll(context);
                std::task::Poll::Ready(())
            })
            .await;
        });
    }
    for block in 0..4 {
        assert!(put(&volume, block, WHOLE).unwrap().already_had);
        assert_block(&volume, block, WHOLE);
    }
    assert_eq!((volume.stat().replicas, volume.stat().pool.large_used), (4, 0));
}
