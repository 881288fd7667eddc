//! A volume on the simulated disk beside a model, a plain map: random operations, crashes, faults. A seed replays.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::block::{BlockId, Origin};
use crate::device::Files;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::exec::run;
use crate::identity;
use crate::limits::{BLOCK_BYTES_MAX, UNIT_BYTES};
use crate::pool::{Lane, LaneOptions, PoolOptions};
use crate::sim::{Fault, Faults, Kind, Plan, Rng, SimDisk};
use crate::types::{Epoch, OpenReport, Options, ReplicaState, VolumeState};
use crate::volume::{Volume, new_pool};

const CAPACITY_BYTES: u64 = 48 << 20;

/// The seeds to run: those given as BLOCKYARD_SIM_SEEDS=FROM..TO, else so many.
fn seeds(count: u64) -> std::ops::Range<u64> {
    let given = std::env::var("BLOCKYARD_SIM_SEEDS").ok();
    let range = given.as_deref().and_then(|range| range.split_once(".."));
    let range = range.and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or(0..count)
}

fn options() -> Options {
    let mut options = Options::new("simulated");
    options.capacity_bytes = CAPACITY_BYTES;
    options.journal_bytes = 1 << 20;
    let lane = LaneOptions { large: 1, small: 2 };
    options.pool = PoolOptions {
        head: LaneOptions { large: 4, small: 6 },
        next: lane,
        repair: lane,
        read: lane,
    };
    options
}

fn new_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed, 1 << 40);
    let mut random = [0; 32];
    disk.device().random(&mut random).unwrap();
    let text = identity::encode(&identity::new_identity([1; 16], &random)).unwrap();
    disk.device().replace(identity::FILE, text.as_bytes()).unwrap();
    disk
}

fn open(disk: &SimDisk) -> Result<(Volume, OpenReport)> {
    let options = options();
    let pool = new_pool(&options)?;
    Volume::open_on(Box::new(disk.device()), pool, &options, Some([1; 16]))
}

/// A block's bytes follow from its id.
fn length_of(block: u64) -> usize {
    let mut rng = Rng::new(block);
    let limit = match rng.below(40) {
        0 => BLOCK_BYTES_MAX,
        1..=4 => 5 * UNIT_BYTES,
        5..=9 => 20_000,
        _ => 5_000,
    };
    1 + rng.below(limit as u64) as usize
}

/// Differs from block to block and from page to page; cheap, because most of the tests' time goes here.
fn bytes_of(block: u64) -> Vec<u8> {
    let mut rng = Rng::new(!block);
    let noise: Vec<u8> = (0..4096 / 8).flat_map(|_| rng.next().to_le_bytes()).collect();
    let mut bytes = noise.repeat(length_of(block).div_ceil(noise.len()));
    for (page, start) in (0..bytes.len()).step_by(noise.len()).enumerate() {
        bytes[start + 8..start + 16].copy_from_slice(&(page as u64).to_le_bytes());
    }
    bytes.truncate(length_of(block));
    bytes
}

/// What may be said of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Truth {
    /// Acknowledged: it must be there.
    There,
    /// Neither answer came: it may be there, whole, or not; or be suspect.
    Perhaps,
    /// Acknowledged as deleted, or never put: it must not be there.
    Gone,
}

#[derive(Default)]
struct Model {
    blocks: BTreeMap<u64, Truth>,
    epoch: u64,
    next_block: u64,
}

enum Did {
    Put(u64, Result<()>),
    Deleted(Vec<u64>, Result<()>),
    Got(u64, Result<bool>),
    Raised(u64, Result<()>),
    Other(Result<()>),
}

type Doing<'a> = Pin<Box<dyn Future<Output = Did> + 'a>>;

async fn put(volume: &Volume, block: u64) -> Result<()> {
    let bytes = bytes_of(block);
    let mut buffer = volume.acquire(Lane::Head, bytes.len() as u32).await?;
    buffer.fill(&bytes)?;
    volume
        .put(BlockId(block), Origin::default(), buffer)
        .await
        .map(drop)
}

/// Whether the bytes were right.
async fn get(volume: &Volume, block: u64, rng: &mut Rng) -> Result<bool> {
    let length = length_of(block) as u64;
    if rng.chance(500) {
        return get_range(volume, block, 0, length).await;
    }
    let offset = rng.below(length);
    get_range(volume, block, offset, 1 + rng.below(length - offset)).await
}

async fn get_range(volume: &Volume, block: u64, offset: u64, count: u64) -> Result<bool> {
    let verified = volume
        .get(BlockId(block), offset as u32, count as u32, Lane::Read)
        .await?;
    let from = offset as usize - verified.offset as usize;
    let wanted = &bytes_of(block)[offset as usize..(offset + count) as usize];
    Ok(&verified.data[from..from + count as usize] == wanted)
}

/// A few operations at once, on different blocks each.
fn some_operations<'a>(volume: &'a Volume, model: &mut Model, rng: &mut Rng) -> Vec<Doing<'a>> {
    let mut doing: Vec<Doing<'a>> = Vec::new();
    let mut busy = BTreeSet::new();
    for _ in 0..1 + rng.below(6) {
        let known: Vec<u64> = model
            .blocks
            .keys()
            .copied()
            .filter(|block| !busy.contains(block))
            .collect();
        let pick = (!known.is_empty()).then(|| known[rng.below(known.len().max(1) as u64) as usize]);
        match (rng.below(12), pick) {
            (0..=5, _) | (_, None) => {
                model.next_block += 1;
                let block = model.next_block;
                busy.insert(block);
                doing.push(Box::pin(async move { Did::Put(block, put(volume, block).await) }));
            }
            (6 | 7, Some(block)) => {
                busy.insert(block);
                doing.push(Box::pin(async move {
                    let deleted = volume.delete(&[BlockId(block)]).await;
                    Did::Deleted(vec![block], deleted.map(drop))
                }));
            }
            (8..=10, Some(block)) => {
                busy.insert(block);
                let mut rng = Rng::new(rng.next());
                doing.push(Box::pin(async move {
                    Did::Got(block, get(volume, block, &mut rng).await)
                }));
            }
            (_, Some(_)) if rng.chance(500) => {
                doing.push(Box::pin(async move { Did::Other(volume.checkpoint().await) }));
            }
            _ if busy.insert(0) => {
                let number = model.epoch + 1;
                doing.push(Box::pin(async move {
                    Did::Raised(
                        number,
                        volume
                            .raise_epoch(Epoch {
                                number,
                                incarnation: [3; 16],
                            })
                            .await,
                    )
                }));
            }
            _ => {}
        }
    }
    doing
}

async fn all(mut doing: Vec<Doing<'_>>) -> Vec<Did> {
    let mut done = Vec::new();
    poll_fn(move |context| {
        doing.retain_mut(|one| match one.as_mut().poll(context) {
            Poll::Ready(did) => {
                done.push(did);
                false
            }
            Poll::Pending => true,
        });
        if doing.is_empty() {
            Poll::Ready(std::mem::take(&mut done))
        } else {
            Poll::Pending
        }
    })
    .await
}

impl Model {
    /// Takes note of answers; whether the volume still works.
    fn note(&mut self, did: Did, seed: u64) -> bool {
        let failed = |error: &Error| matches!(error, Error::Failed { .. });
        match did {
            Did::Put(block, Ok(())) => drop(self.blocks.insert(block, Truth::There)),
            Did::Put(_, Err(Error::NoSpace { .. })) => {}
            Did::Put(block, Err(error)) if failed(&error) => {
                self.blocks.insert(block, Truth::Perhaps);
                return false;
            }
            Did::Deleted(blocks, Ok(())) => blocks.iter().for_each(|&block| {
                self.blocks.insert(block, Truth::Gone);
            }),
            Did::Deleted(blocks, Err(error)) if failed(&error) => {
                for block in blocks {
                    if self.blocks[&block] == Truth::There {
                        self.blocks.insert(block, Truth::Perhaps);
                    }
                }
                return false;
            }
            Did::Got(block, Ok(right)) => {
                assert!(right, "seed {seed}: block {block} came back wrong");
                assert_ne!(
                    self.blocks[&block],
                    Truth::Gone,
                    "seed {seed}: block {block} was deleted"
                );
            }
            Did::Got(block, Err(error)) => match error {
                Error::Failed { .. } => return false,
                Error::NotFound { .. } => {
                    assert_ne!(
                        self.blocks[&block],
                        Truth::There,
                        "seed {seed}: block {block} is lost"
                    );
                }
                Error::Suspect { .. } => assert_eq!(self.blocks[&block], Truth::Perhaps, "seed {seed}"),
                other => panic!("seed {seed}: get of {block}: {other}"),
            },
            Did::Raised(number, Ok(())) => self.epoch = number,
            Did::Other(Ok(())) => {}
            Did::Raised(_, Err(error)) | Did::Other(Err(error)) if failed(&error) => return false,
            Did::Put(_, Err(error))
            | Did::Deleted(_, Err(error))
            | Did::Raised(_, Err(error))
            | Did::Other(Err(error)) => panic!("seed {seed}: {error}"),
        }
        true
    }

    /// Compares everything, and settles what was unknown.
    fn compare(&mut self, volume: &Volume, seed: u64) {
        let listed: BTreeMap<u64, ReplicaState> = volume
            .list(None, usize::MAX)
            .into_iter()
            .map(|info| (info.block.0, info.state))
            .collect();
        for block in listed.keys() {
            let truth = self.blocks.get(block);
            assert!(
                truth.is_some_and(|truth| *truth != Truth::Gone),
                "seed {seed}: {block} appeared ({truth:?})"
            );
        }
        for (&block, truth) in &mut self.blocks {
            let state = listed.get(&block);
            if *truth == Truth::There {
                assert_eq!(
                    state,
                    Some(&ReplicaState::Live),
                    "seed {seed}: block {block} is lost"
                );
            }
            match state {
                Some(ReplicaState::Live) => {
                    let right = run(volume, get_range(volume, block, 0, length_of(block) as u64));
                    assert!(
                        right.unwrap_or_else(|error| panic!("seed {seed}: {error}")),
                        "seed {seed}: {block}"
                    );
                    *truth = Truth::There;
                }
                Some(_) => *truth = Truth::Perhaps,
                None => *truth = Truth::Gone,
            }
        }
        let epoch = volume.epoch().map_or(0, |epoch| epoch.number);
        assert!(
            epoch == self.epoch || epoch == self.epoch + 1,
            "seed {seed}: epoch {epoch}, {} seen",
            self.epoch
        );
        self.epoch = epoch;
    }
}

/// Operations until the volume fails, or `steps` are done.
fn operate(volume: &Volume, model: &mut Model, rng: &mut Rng, steps: u64, seed: u64) -> bool {
    for _ in 0..steps {
        let doing = some_operations(volume, model, rng);
        let mut works = true;
        for did in run(volume, all(doing)) {
            works &= model.note(did, seed);
        }
        if !works {
            return false;
        }
    }
    true
}

fn harmless(rng: &mut Rng) -> Faults {
    Faults {
        short_per_mille: rng.below(2) * 100,
        interrupted_per_mille: rng.below(2) * 100,
        ..Faults::default()
    }
}

#[test]
fn acknowledged_is_durable_through_crashes_at_every_sync() {
    for seed in seeds(80) {
        let mut rng = Rng::new(seed);
        let disk = new_disk(seed);
        disk.set_flushes_device(!seed.is_multiple_of(5));
        let mut model = Model::default();
        for round in 0..6 {
            let crash_at_sync = if round == 0 {
                rng.below(30) + 6
            } else {
                rng.below(40)
            };
            disk.set_faults(Faults {
                crash_at_sync: Some(crash_at_sync),
                ..harmless(&mut rng)
            });
            // Recovery itself may be cut off, and must then go on from there.
            match open(&disk) {
                Ok((volume, report)) => {
                    for block in report.suspects {
                        assert_eq!(model.blocks[&block.0], Truth::Perhaps, "seed {seed}: {block}");
                    }
                    operate(&volume, &mut model, &mut rng, 60, seed);
                }
                Err(error) => assert!(disk.syncs() > crash_at_sync, "seed {seed}: {error}"),
            }
            disk.crash();
            disk.set_faults(Faults::default());
            let (volume, _) =
                open(&disk).unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
            model.compare(&volume, seed);
            // Dropped without closing: the process is killed, the caches survive.
            drop(volume);
            let (volume, _) =
                open(&disk).unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
            model.compare(&volume, seed);
            if rng.chance(300) {
                run(&volume, volume.close()).unwrap();
            }
        }
    }
}

fn plan(kind: Kind, name_prefix: &'static str, nth: u64, fault: Fault) -> Plan {
    Plan {
        kind,
        name_prefix,
        nth,
        for_ever: false,
        fault,
    }
}

#[test]
fn a_failed_write_or_flush_latches_and_nothing_acknowledged_is_lost() {
    for seed in seeds(60) {
        let mut rng = Rng::new(seed ^ 0xfa11);
        let disk = new_disk(seed);
        let mut model = Model::default();
        let (volume, _) = open(&disk).unwrap();
        let kind = if rng.chance(500) { Kind::Sync } else { Kind::Write };
        let name = ["segments", "journal", "checkpoint"][rng.below(3) as usize];
        let plans = vec![plan(kind, name, rng.below(20), Fault::Error(libc::EIO))];
        disk.set_faults(Faults {
            plans,
            ..harmless(&mut rng)
        });
        let works = operate(&volume, &mut model, &mut rng, 100, seed);
        let state = volume.stat().state;
        assert_eq!(
            works,
            state == VolumeState::Serving || state == VolumeState::Full,
            "seed {seed}: {state:?}"
        );
        if !works {
            // Once failed, for ever failed, though the disk works again; reads are served.
            disk.set_faults(Faults::default());
            assert_eq!(
                run(&volume, put(&volume, 1 << 40)).unwrap_err().kind(),
                ErrorKind::Fatal
            );
            let there: Vec<u64> = volume.list(None, 5).iter().map(|info| info.block.0).collect();
            for block in there {
                assert!(
                    run(&volume, get(&volume, block, &mut rng)).unwrap(),
                    "seed {seed}"
                );
            }
        }
        drop(volume);
        disk.set_faults(Faults::default());
        disk.crash();
        let (volume, _) = open(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        model.compare(&volume, seed);
    }
}

#[test]
fn lost_and_misdirected_writes_and_flipped_bits_are_never_returned() {
    for seed in seeds(60) {
        let mut rng = Rng::new(seed ^ 0x10c7);
        let disk = new_disk(seed);
        let (volume, _) = open(&disk).unwrap();
        let fault = if rng.chance(500) {
            Fault::Lost
        } else {
            Fault::Misdirected((1 + rng.below(8)) * 4096)
        };
        let plans = (0..3)
            .map(|_| plan(Kind::Write, "segments/", 1 + rng.below(30), fault))
            .collect();
        disk.set_faults(Faults {
            plans,
            ..Faults::default()
        });
        let blocks: Vec<u64> = (0..40).collect();
        for &block in &blocks {
            run(&volume, put(&volume, block)).unwrap();
        }
        for _ in 0..3 {
            disk.flip("segments/00000000.seg", rng.below(1 << 20));
        }
        drop(volume);
        let (volume, _) = open(&disk).unwrap();
        let mut damaged = 0;
        for &block in &blocks {
            match run(&volume, get(&volume, block, &mut rng)) {
                Ok(right) => assert!(right, "seed {seed}: block {block} came back wrong"),
                Err(Error::Corrupt { .. } | Error::Suspect { .. }) => damaged += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        let stat = volume.stat();
        assert_eq!(stat.corrupt + stat.suspects, damaged, "seed {seed}");
        // Each is healed by putting it again.
        disk.set_faults(Faults::default());
        for &block in &blocks {
            run(&volume, put(&volume, block)).unwrap();
        }
        assert_eq!(
            (volume.stat().corrupt, volume.stat().suspects),
            (0, 0),
            "seed {seed}"
        );
    }
}

#[test]
fn suspects_are_confirmed_or_forgotten() {
    let mut found = 0;
    for seed in seeds(200) {
        let disk = new_disk(seed);
        let (volume, _) = open(&disk).unwrap();
        // The slot's write never reaches the disk, and the power goes before the flush is answered.
        let plans = vec![plan(Kind::Write, "segments/", 1, Fault::Lost)];
        disk.set_faults(Faults {
            plans,
            crash_at_sync: Some(disk.syncs() + 4),
            ..Faults::default()
        });
        let _ = run(&volume, put(&volume, 1));
        drop(volume);
        disk.crash();
        disk.set_faults(Faults::default());
        let (volume, report) = open(&disk).unwrap();
        let Some(&block) = report.suspects.first() else {
            continue;
        };
        found += 1;
        assert!(matches!(
            run(&volume, get(&volume, 1, &mut Rng::new(1))),
            Err(Error::Suspect { .. })
        ));
        drop(volume);
        let (volume, report) = open(&disk).unwrap();
        assert_eq!(
            (report.suspects.as_slice(), volume.stat().suspects),
            (&[block][..], 1)
        );
        if seed.is_multiple_of(2) {
            assert!(matches!(
                run(&volume, volume.confirm_suspect(block)),
                Err(Error::Corrupt { .. })
            ));
            run(&volume, volume.delete(&[block])).unwrap();
        } else {
            run(&volume, volume.forget_suspect(block)).unwrap();
        }
        assert_eq!((volume.stat().replicas, volume.stat().used_bytes), (0, 0));
    }
    assert!(
        found * 20 >= seeds(200).count(),
        "the fault was hit {found} times only"
    );
}

#[test]
fn a_full_filesystem_refuses_puts_and_still_deletes() {
    for seed in seeds(30) {
        let disk = new_disk(seed);
        let (volume, _) = open(&disk).unwrap();
        let mut rng = Rng::new(seed);
        run(&volume, put(&volume, 1)).unwrap();
        // Others took all the space.
        disk.set_capacity(0);
        let mut blocks = 1;
        let error = loop {
            match run(&volume, put(&volume, blocks + 1)) {
                Ok(()) => blocks += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::NoSpace, "seed {seed}: {error}");
        // Far more deletes than the journal holds without checkpoints.
        for round in 0..400 {
            let block = 1 + round % blocks;
            run(&volume, volume.delete(&[BlockId(block)])).unwrap();
            run(&volume, put(&volume, block)).unwrap();
            assert!(run(&volume, get(&volume, block, &mut rng)).unwrap());
        }
        assert!(volume.stat().checkpoints > 1);
        drop(volume);
        disk.crash();
        let (volume, _) = open(&disk).unwrap();
        assert_eq!(volume.stat().replicas, blocks);
        disk.set_capacity(1 << 40);
        run(&volume, put(&volume, 1 << 40)).unwrap();
    }
}
