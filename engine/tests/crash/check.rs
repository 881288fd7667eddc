//! The child that opens a volume after a crash and holds it against the log; then it goes on with the volume.

use std::collections::BTreeSet;
use std::path::PathBuf;

use blockyard_engine::block::{BlockId, Origin};
use blockyard_engine::{Kind, Lane, ReplicaState, Result, Volume, VolumeState, exec};

use super::log::{Event, Fate, Known, Log};
use super::workload::{CLUSTER, content, options, read};

/// Blocks put after a check, to see that the volume goes on: one small, one of several units, one of a large class.
const LENGTHS_AFTER: [usize; 3] = [3_000, 200_000, 1_200_000];

/// Where to look, as a child's arguments.
#[derive(Clone, Debug)]
pub struct Check {
    pub volume: PathBuf,
    pub log: PathBuf,
    /// Whether to close the volume in the end, or leave it as a crash of the process would.
    pub close: bool,
}

/// Writes findings into the log, and there also what has become of the operations that the crash interrupted.
pub fn check(check: &Check) -> Result<()> {
    let known = Known::read(&check.log).unwrap_or_default();
    let mut log = Log::append(&check.log).expect("a log");
    let (volume, report) = match Volume::open(options(&check.volume), Some(CLUSTER)) {
        Ok(opened) => opened,
        Err(error) => {
            log.write(Event::Finding(&format!("refused: {error}")));
            return Ok(());
        }
    };
    let mut checker = Checker {
        volume,
        log,
        verified: 0,
    };
    let mut strange: BTreeSet<BlockId> = checker
        .volume
        .list(None, usize::MAX)
        .iter()
        .map(|info| info.block)
        .collect();
    for (&block, &(length, fate)) in &known.blocks {
        strange.remove(&BlockId(block));
        checker.block(block, length, fate)?;
    }
    for block in strange {
        checker.finding(&format!("strange: nobody put block {}", block.0));
    }
    checker.go_on(known.next_block())?;
    checker.log.write(Event::Checked {
        blocks: checker.verified,
        suspects: report.suspects.len() as u64,
    });
    if check.close {
        exec::run(&checker.volume, checker.volume.close())?;
    }
    Ok(())
}

struct Checker {
    volume: Volume,
    log: Log,
    verified: u64,
}

impl Checker {
    fn finding(&mut self, what: &str) {
        self.log.write(Event::Finding(what));
    }

    fn block(&mut self, block: u64, length: usize, fate: Fate) -> Result<()> {
        let state = self.volume.lookup(BlockId(block)).map(|info| info.state);
        match (fate, state) {
            (Fate::Gone, None) => {}
            (Fate::Gone, Some(state)) => self.finding(&format!("resurrected: block {block}, {state:?}")),
            (Fate::Put, None) => self.finding(&format!("lost: block {block} of {length} B")),
            (Fate::Begun | Fate::Leaving, None) => self.log.block(block, length, Fate::Gone),
            (_, Some(ReplicaState::Live)) => self.live(block, length, fate)?,
            // Its record survived, its slot did not, and nobody was told that it would.
            (Fate::Begun, Some(ReplicaState::Suspect)) => {
                exec::run(&self.volume, self.volume.forget_suspect(BlockId(block)))?;
                self.log.block(block, length, Fate::Gone);
            }
            (_, Some(state)) => self.finding(&format!("lost: block {block} of {length} B is {state:?}")),
        }
        Ok(())
    }

    fn live(&mut self, block: u64, length: usize, fate: Fate) -> Result<()> {
        match exec::run(&self.volume, read(&self.volume, block, length)) {
            Ok(None) if fate == Fate::Put => self.verified += 1,
            // From now on it has to stay.
            Ok(None) => self.log.block(block, length, Fate::Put),
            Ok(Some(what)) => self.finding(&what),
            Err(error) if error.kind() == Kind::OtherReplica => self.finding(&format!("lost: {error}")),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Puts, reads and deletes on the recovered volume.
    fn go_on(&mut self, mut next_block: u64) -> Result<()> {
        for length in LENGTHS_AFTER {
            let block = next_block;
            next_block += 1;
            self.log.block(block, length, Fate::Begun);
            let put = exec::run(&self.volume, async {
                let mut buffer = self.volume.acquire(Lane::Head, length as u32).await?;
                buffer.fill(&content(block, length))?;
                let origin = Origin { version: 2, index: 0 };
                self.volume.put(BlockId(block), origin, buffer).await
            });
            match put {
                Ok(_) => self.log.block(block, length, Fate::Put),
                Err(error) if error.kind() == Kind::NoSpace => continue,
                Err(error) => return Err(error),
            }
            self.live(block, length, Fate::Put)?;
            if block.is_multiple_of(2) {
                self.log.block(block, length, Fate::Leaving);
                exec::run(&self.volume, self.volume.delete(&[BlockId(block)]))?;
                self.log.block(block, length, Fate::Gone);
            }
        }
        match self.volume.stat().state {
            VolumeState::Serving | VolumeState::Full => {}
            state => self.finding(&format!("refused: the volume is {state:?} after recovery")),
        }
        Ok(())
    }
}
