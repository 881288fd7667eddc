//! What a volume that nobody has open holds, with where each block came from: what is left to make names of when
//! the nameserver's own data is lost.

use std::collections::HashMap;
use std::path::Path;

use crate::block::{BlockId, Origin};
use crate::error::{Error, Result};
use crate::folder::Folder;
use crate::identity;
use crate::types::{Epoch, Identity, ReplicaState};

use super::{believed, slots};

/// A replica and the provenance that its slot tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InventoryBlock {
    /// The block.
    pub block: BlockId,
    /// The version that it was made for, and its place there.
    pub origin: Origin,
    /// Bytes.
    pub length: u32,
    /// CRC32C of the block.
    pub crc32c: u32,
    /// What the index knows of it.
    pub state: ReplicaState,
}

/// What a volume holds.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// Who the volume is.
    pub identity: Identity,
    /// The highest epoch that it has seen.
    pub epoch: Option<Epoch>,
    /// Its replicas, by block.
    pub blocks: Vec<InventoryBlock>,
    /// Replicas whose slot does not tell where they came from, and why.
    pub unreadable: Vec<(BlockId, String)>,
}

/// Reads a page of every slot that the index of the volume in `dir` names. Blocks; changes nothing. Fails where the
/// index can't be read: rebuild it first.
pub fn inventory(dir: &Path) -> Result<Inventory> {
    if !dir.join(identity::FILE).exists() {
        return Err(Error::NotAVolume { dir: dir.to_owned() });
    }
    let folder = Folder::lock(dir)?;
    let content = folder
        .read(identity::FILE)
        .map_err(Error::io("reading volume.toml"))?;
    let identity = identity::decode(&content)?;
    let believed = believed::read(&folder, &identity)?;
    if let Some(why) = believed.trouble {
        return Err(Error::damaged(format!(
            "its index can't be read, rebuild it first (volume fsck --rebuild): {why}"
        )));
    }
    let files = slots::list(dir, &mut Vec::new()).map_err(Error::io("listing segments"))?;
    let files: HashMap<u16, _> = files.iter().map(|file| (file.number, file)).collect();
    let mut found = Inventory {
        epoch: believed.epoch,
        blocks: Vec::with_capacity(believed.replicas.len()),
        unreadable: Vec::new(),
        identity,
    };
    for (block, replica) in &believed.replicas {
        let segment = replica.place.segment;
        let slot = match (files.get(&segment), believed.segments.get(&segment)) {
            (Some(file), Some(cut)) => file.read_slot(&found.identity.volume, cut, replica.place),
            _ => Err("its segment is missing".to_owned()),
        };
        let same = slot.and_then(
            |slot| match (slot.header.block, slot.seal) == (*block, replica.seal) {
                true => Ok(slot.header.origin),
                false => Err("the slot's header is not the one that was put".to_owned()),
            },
        );
        match same {
            Ok(origin) => found.blocks.push(InventoryBlock {
                block: *block,
                origin,
                length: replica.length,
                crc32c: replica.crc32c,
                state: replica.state,
            }),
            Err(why) => found.unreadable.push((*block, why)),
        }
    }
    found.blocks.sort_by_key(|held| held.block);
    Ok(found)
}
