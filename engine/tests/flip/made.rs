//! A volume that has something of everything, and what is known of it.

use std::collections::BTreeMap;

use blockyard_engine::block::BlockId;
use blockyard_engine::{
    Epoch, LaneOptions, Options, PoolOptions, ReplicaInfo, ReplicaState, Scrub, Volume, exec,
};
use tempfile::TempDir;

use crate::common::{CLUSTER, MIB, put};

/// What a volume says of itself.
#[derive(Clone, PartialEq, Debug)]
pub struct Said {
    pub replicas: Vec<ReplicaInfo>,
    pub epoch: Option<Epoch>,
}

impl Said {
    pub fn by(volume: &Volume) -> Self {
        Self {
            replicas: volume.list(None, usize::MAX),
            epoch: volume.epoch(),
        }
    }

    /// Blocks that are served, and their lengths.
    pub fn served(&self) -> BTreeMap<u64, usize> {
        let live = self.replicas.iter().filter(|one| one.state == ReplicaState::Live);
        live.map(|one| (one.block.0, one.length as usize)).collect()
    }
}

/// A volume that is not open.
pub struct Made {
    pub dir: TempDir,
    pub options: Options,
    pub said: Said,
    /// What it said before the last batch, where no later one tells whether that was durable.
    pub before_last: Option<Said>,
    pub deleted: Vec<u64>,
}

/// How a volume was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Left {
    Closed,
    Killed,
}

impl Made {
    fn new(capacity_bytes: u64) -> Self {
        // Openings are by far the most of the work, and in memory they are several times as quick.
        let memory = "/dev/shm";
        let free_bytes = rustix::fs::statvfs(memory).map_or(0, |free| free.f_bavail * free.f_frsize);
        let mut builder = tempfile::Builder::new();
        builder.prefix("blockyard-flips-");
        let dir = match free_bytes > 2 * capacity_bytes {
            true => builder.tempdir_in(memory),
            false => builder.tempdir(),
        }
        .expect("a folder");
        Volume::format(dir.path(), CLUSTER).expect("formatting");
        let mut options = Options::new(dir.path());
        options.capacity_bytes = capacity_bytes;
        options.journal_bytes = MIB / 2;
        options.queue_depth = 16;
        // Registering the pool takes most of an opening.
        let lane = LaneOptions { large: 1, small: 1 };
        options.pool = PoolOptions {
            head: lane,
            next: lane,
            repair: lane,
            read: lane,
        };
        Self {
            dir,
            options,
            said: Said {
                replicas: Vec::new(),
                epoch: None,
            },
            before_last: None,
            deleted: Vec::new(),
        }
    }

    fn left(mut self, volume: Volume, left: Left) -> Self {
        self.said = Said::by(&volume);
        if left == Left::Closed {
            exec::run(&volume, volume.close()).expect("closing");
            self.before_last = None;
        }
        self
    }

    /// Blocks of nine slot classes, deletions, segments cut anew, replicas out of service, epochs, and two checkpoints
    /// with changes before, between and behind them.
    pub fn varied(left: Left) -> Self {
        let mut made = Self::new(64 * MIB);
        let (volume, _) = Volume::open(made.options.clone(), Some(CLUSTER)).expect("opening");
        let put = |block, length| {
            put(&volume, block, length).expect("putting");
        };
        let checkpoint = || exec::run(&volume, volume.checkpoint()).expect("a checkpoint");
        let mut delete = |blocks: &[u64]| {
            let ids: Vec<BlockId> = blocks.iter().copied().map(BlockId).collect();
            exec::run(&volume, volume.delete(&ids)).expect("deleting");
            made.deleted.extend(blocks);
        };
        let raise = |number| {
            let epoch = Epoch {
                number,
                incarnation: [number as u8 + 0x40; 16],
            };
            exec::run(&volume, volume.raise_epoch(epoch)).expect("raising the epoch");
        };
        raise(1);
        for (block, length) in (1..).zip([1, 3000, 5000, 12_000, 16_257, 70_000, 300_000, 4 << 20]) {
            put(block, length);
        }
        delete(&[3]);
        // Block 3 was alone in its segment, which is cut anew for this one.
        put(9, 30_000);
        checkpoint();
        put(10, 2000);
        put(11, 150_000);
        delete(&[10, 4]);
        put(12, 40_000);
        exec::run(&volume, volume.mark_corrupt(BlockId(2))).expect("marking");
        exec::run(&volume, volume.mark_corrupt(BlockId(9))).expect("marking");
        put(9, 30_000);
        raise(2);
        checkpoint();
        // So that there is a record of the scrub.
        let mut scrub = Scrub::resume(&volume);
        while !exec::run(&volume, scrub.step(MIB)).expect("scrubbing").pass_ended {}
        for _ in 0..4 {
            exec::run(&volume, scrub.step(1)).expect("scrubbing");
        }
        scrub.save().expect("saving");
        drop(scrub);
        put(13, 100);
        delete(&[12, 1]);
        put(14, 20_000);
        put(15, 66_000);
        raise(3);
        exec::run(&volume, volume.mark_corrupt(BlockId(5))).expect("marking");
        put(5, 16_257);
        made.before_last = Some(Said::by(&volume));
        put(16, 3500);
        made.left(volume, left)
    }

    /// Many blocks of one to some checksum units.
    pub fn many(blocks: u64) -> Self {
        let made = Self::new(512 * MIB);
        let (volume, _) = Volume::open(made.options.clone(), Some(CLUSTER)).expect("opening");
        for block in 1..=blocks {
            let length = match block % 8 {
                0 => 70_000 + block as usize * 499,
                1 => 65_536,
                _ => 1 + block as usize * 7919 % 33_000,
            };
            put(&volume, block, length).expect("putting");
        }
        made.left(volume, Left::Closed)
    }
}
