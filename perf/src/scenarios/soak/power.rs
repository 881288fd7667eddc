//! A disk in memory, under a loop device under ext4, on which a whole cluster lies: its power can fail.
//!
//! Needs root. It knows no cluster: whoever uses it has stopped all that writes before the power fails, so that nothing
//! can be acknowledged behind that moment, and has killed it before the power comes back.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use blockyard_crash_disk::disk::{Cut, Leaves};
use blockyard_crash_disk::mount::{Mounted, Rig};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::cleanup;

/// Files that the filesystem has room for.
const FILES: u32 = 4096;

/// The disk. Dropped, it is gone with all on it.
pub(super) struct Power {
    // Unmounted before the disk goes.
    mounted: Option<Mounted>,
    rig: Rig,
    cut: Option<Cut>,
    dice: SmallRng,
    cuts: u64,
}

impl Power {
    /// A disk of so many bytes with an empty folder on it; what a cut leaves of unflushed writes follows from `seed`.
    pub(super) fn new(disk_bytes: u64, seed: u64) -> Result<Self> {
        let rig = Rig::new(disk_bytes).context("no disk in memory")?;
        cleanup::unmount_on_signal(rig.folder());
        rig.make_filesystem_for(FILES, |_| {})
            .context("no filesystem on the disk in memory")?;
        let mounted = rig.mount().context("the disk in memory can't be mounted")?;
        Ok(Self {
            mounted: Some(mounted),
            rig,
            cut: None,
            dice: SmallRng::seed_from_u64(seed),
            cuts: 0,
        })
    }

    /// The folder on it.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        let mounted = self.mounted.as_ref().context("the power is off")?;
        Ok(mounted.volume())
    }

    /// The power fails: from now on every request does.
    pub(super) fn fail(&mut self) {
        self.cut = Some(self.rig.shared.disk().power_off(0));
    }

    /// The power is back. Of what was written and not flushed, some is there.
    pub(super) fn come_back(&mut self) -> Result<()> {
        let Some(cut) = self.cut.take() else {
            bail!("the power has not failed")
        };
        if let Some(mounted) = self.mounted.take() {
            mounted
                .unmount()
                .context("the disk in memory can't be unmounted")?;
        }
        let leaves = Leaves::nth(self.cuts % 8, &mut self.dice);
        self.cuts += 1;
        let (image, fingerprint) = cut.leaving(leaves, &mut self.dice);
        self.rig.shared.disk().load(image, fingerprint);
        let mounted = self.rig.mount();
        self.mounted =
            Some(mounted.with_context(|| format!("ext4 is lost behind a cut that left {leaves:?}"))?);
        Ok(())
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take()
            && let Err(error) = mounted.unmount()
        {
            eprintln!("the disk in memory can't be unmounted: {error}");
        }
        cleanup::is_unmounted(self.rig.folder());
    }
}
