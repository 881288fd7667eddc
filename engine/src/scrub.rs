//! Scrub: reads everything a volume keeps, step by step, and says what does not verify. Knows no clock: whoever
//! calls [`Scrub::step`] sets the pace, and pauses by not calling it.
//!
//! A pass looks at volume.toml and the superblocks, the checkpoints and the journal behind them, and then at every
//! replica in the order of the blocks' ids. What is damaged beside the replicas is written again: its truth is in
//! memory. A damaged replica goes out of service, as when a read finds it; its truth is on another volume.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::block::BlockId;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::get::{self, ReadError};
use crate::pool::Lane;
use crate::scrub_metadata;
use crate::types::ReplicaState;
use crate::volume::Volume;

/// Where the progress is kept: a loss of it costs at most a pass.
const FILE: &str = "scrub.toml";
/// Progress is written down after so many bytes, and at the end of each pass.
const SAVE_BYTES: u64 = 1 << 30;

/// How far a volume's scrub has come.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ScrubStatus {
    /// Passes that have ended.
    pub passes: u64,
    /// When the last of them ended, in milliseconds since 1970.
    pub last_pass_ended_ms: Option<u64>,
    /// The last block that this pass has looked at; none before the first.
    pub position: Option<BlockId>,
    /// Replicas that this pass found whole.
    pub verified_replicas: u64,
    /// Bytes of these blocks.
    pub verified_bytes: u64,
    /// Findings of this pass: replicas, and whatever else was damaged.
    pub damaged: u64,
    /// Somebody wants it to wait; the caller takes no steps then.
    pub paused: bool,
}

/// What a scrub found damaged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finding {
    /// A replica, which is out of service now.
    Replica {
        /// Its block.
        block: BlockId,
        /// What did not hold.
        what: String,
    },
    /// A file or a page that the volume needs for its next start.
    Metadata {
        /// What did not hold.
        what: String,
        /// Whether it was written again. A failed volume writes nothing.
        repaired: bool,
    },
}

/// What one step did.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct ScrubStep {
    /// Bytes read, to be paced by.
    pub bytes: u64,
    /// What was damaged.
    pub findings: Vec<Finding>,
    /// Whether the pass ended here; the next step begins another.
    pub pass_ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Superblocks,
    Checkpoints,
    Journal,
    Replicas,
}

/// A volume's scrub. One at a time: two would do no harm, but write the same file.
pub struct Scrub {
    volume: Volume,
    status: ScrubStatus,
    phase: Phase,
    unsaved_bytes: u64,
}

/// The file's text. Ids are hexadecimal: TOML's numbers have 63 bits.
#[derive(Serialize, Deserialize)]
struct Text {
    passes: u64,
    last_pass_ended_ms: Option<u64>,
    position: Option<String>,
    verified_replicas: u64,
    verified_bytes: u64,
    damaged: u64,
    #[serde(default)]
    paused: bool,
}

impl Scrub {
    /// Goes on where the volume's last scrub stopped. A missing or unreadable record of that begins a new pass.
    pub fn resume(volume: &Volume) -> Self {
        let kept = volume.core().io.disk(|disk| disk.read(FILE));
        let status = kept.ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Self {
            volume: volume.clone(),
            phase: match status.position {
                Some(_) => Phase::Replicas,
                None => Phase::Superblocks,
            },
            status,
            unsaved_bytes: 0,
        }
    }

    /// How far it is.
    pub fn status(&self) -> &ScrubStatus {
        &self.status
    }

    /// Reads on: at least one thing, and no further replica once `most_bytes` are read. (The superblocks, the
    /// checkpoints and the journal are a step each, however long.) An error says that the volume is closed or can't
    /// read for want of something; the scrub stays where it is.
    pub async fn step(&mut self, most_bytes: u64) -> Result<ScrubStep> {
        let core = self.volume.core().clone();
        if core.state.borrow().closed {
            return Err(Error::Closed);
        }
        let mut step = ScrubStep::default();
        match self.phase {
            Phase::Superblocks => {
                scrub_metadata::identity(&core, &mut step);
                scrub_metadata::superblocks(&core, &mut step).await?;
                self.phase = Phase::Checkpoints;
            }
            Phase::Checkpoints => {
                scrub_metadata::checkpoints(&core, &mut step).await?;
                self.phase = Phase::Journal;
            }
            Phase::Journal => {
                scrub_metadata::journal(&core, &mut step).await?;
                self.phase = Phase::Replicas;
            }
            Phase::Replicas => self.replicas(&core, most_bytes, &mut step).await?,
        }
        for finding in &step.findings {
            if let Finding::Metadata { what, repaired } = finding {
                tracing::error!(what, repaired, "scrub found damage");
            }
        }
        self.status.damaged += step.findings.len() as u64;
        self.unsaved_bytes += step.bytes;
        if step.pass_ended {
            self.begin_again();
        }
        if step.pass_ended || self.unsaved_bytes >= SAVE_BYTES {
            self.save()?;
        }
        Ok(step)
    }

    async fn replicas(
        &mut self,
        core: &std::rc::Rc<Core>,
        most_bytes: u64,
        step: &mut ScrubStep,
    ) -> Result<()> {
        while step.bytes < most_bytes.max(1) {
            let next = {
                let state = core.state.borrow();
                let next = state.index.behind(self.status.position).next();
                next.map(|(block, replica)| (block, replica, state.deleting.contains(&block)))
            };
            let Some((block, replica, deleting)) = next else {
                step.pass_ended = true;
                return Ok(());
            };
            if replica.state == ReplicaState::Live && !deleting {
                match get::verify(core, block, replica, Lane::Repair).await {
                    Ok(()) => {
                        self.status.verified_replicas += 1;
                        self.status.verified_bytes += u64::from(replica.length);
                    }
                    Err(ReadError::Damage(what)) => {
                        get::remember_damage(core, block, replica, &what);
                        step.findings.push(Finding::Replica { block, what });
                    }
                    Err(ReadError::Trouble(error)) => {
                        return Err(Error::io(format!("reading block {block}"))(error));
                    }
                }
                step.bytes += u64::from(replica.length);
            }
            self.status.position = Some(block);
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.status = ScrubStatus {
            passes: self.status.passes + 1,
            last_pass_ended_ms: Some(now.as_millis() as u64),
            paused: self.status.paused,
            ..ScrubStatus::default()
        };
        self.phase = Phase::Superblocks;
    }

    /// Notes whether it is to wait, so that the next start knows.
    pub fn set_paused(&mut self, paused: bool) -> Result<()> {
        self.status.paused = paused;
        self.save()
    }

    /// Writes down how far it is, to be called before a pause that may outlive the process.
    pub fn save(&mut self) -> Result<()> {
        let text = encode(&self.status);
        let saved = self
            .volume
            .core()
            .io
            .disk(|disk| disk.replace(FILE, text.as_bytes()));
        saved.map_err(Error::io(format!("writing {FILE}")))?;
        self.unsaved_bytes = 0;
        Ok(())
    }
}

fn encode(status: &ScrubStatus) -> String {
    let text = Text {
        passes: status.passes,
        last_pass_ended_ms: status.last_pass_ended_ms,
        position: status.position.map(|block| format!("{:016x}", block.0)),
        verified_replicas: status.verified_replicas,
        verified_bytes: status.verified_bytes,
        damaged: status.damaged,
        paused: status.paused,
    };
    toml::to_string(&text).expect("numbers and a string are TOML")
}

fn decode(bytes: &[u8]) -> Option<ScrubStatus> {
    let text: Text = toml::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    let position = match text.position {
        Some(digits) => Some(BlockId(u64::from_str_radix(&digits, 16).ok()?)),
        None => None,
    };
    Some(ScrubStatus {
        passes: text.passes,
        last_pass_ended_ms: text.last_pass_ended_ms,
        position,
        verified_replicas: text.verified_replicas,
        verified_bytes: text.verified_bytes,
        damaged: text.damaged,
        paused: text.paused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_comes_back_and_nonsense_is_none() {
        let status = ScrubStatus {
            passes: 3,
            last_pass_ended_ms: Some(5),
            position: Some(BlockId(u64::MAX - 1)),
            verified_replicas: 7,
            verified_bytes: 8,
            damaged: 9,
            paused: true,
        };
        for status in [status, ScrubStatus::default()] {
            assert_eq!(decode(encode(&status).as_bytes()), Some(status));
        }
        let older = "passes = 1\nverified_replicas = 0\nverified_bytes = 0\ndamaged = 0\n";
        assert!(decode(older.as_bytes()).is_some_and(|status| !status.paused));
        assert_eq!(decode(b"passes = 1"), None);
        assert_eq!(decode(b"\xff"), None);
    }
}
