//! What segment files say of themselves: superblocks, slot headers and the data behind them, by plain reads.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::checksum::crc;
use crate::layout::{Class, Place, SlotHeader, SlotSeed, Superblock};
use crate::limits::{PAGE_BYTES, UNIT_BYTES};
use crate::record::{Cut, Replica};
use crate::space;
use crate::types::ReplicaState;

/// A segment file.
pub(super) struct SegmentFile {
    pub(super) number: u16,
    file: File,
    length_bytes: u64,
    pub(super) superblock: Result<Superblock, String>,
}

/// A slot with a whole header.
pub(super) struct Slot {
    pub(super) header: SlotHeader,
    /// CRC that seals the header.
    pub(super) seal: u32,
    offset_bytes: u64,
}

/// The segment files of the volume in `dir`, in the order of their numbers. What else is there is noted.
pub(super) fn list(dir: &Path, notes: &mut Vec<String>) -> io::Result<Vec<SegmentFile>> {
    let entries = match fs::read_dir(dir.join("segments")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = format!("segments/{}", entry.file_name().to_string_lossy());
        let digits = name
            .strip_prefix("segments/")
            .and_then(|rest| rest.strip_suffix(".seg"));
        let number = digits
            .and_then(|digits| digits.parse().ok())
            .filter(|&number| space::file_name(number) == name);
        let Some(number) = number else {
            notes.push(format!("{name} is no segment"));
            continue;
        };
        let file = File::open(entry.path())?;
        let length_bytes = file.metadata()?.len();
        let mut page = [0; PAGE_BYTES];
        let superblock = match file.read_exact_at(&mut page, 0) {
            Ok(()) => Superblock::decode(&page).map_err(str::to_owned),
            Err(error) => Err(format!("its superblock can't be read: {error}")),
        };
        files.push(SegmentFile {
            number,
            file,
            length_bytes,
            superblock,
        });
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

impl SegmentFile {
    pub(super) fn name(&self) -> String {
        space::file_name(self.number)
    }

    /// How its superblock says that it is cut.
    pub(super) fn cut(&self, volume: &[u8; 16]) -> Result<Cut, String> {
        let superblock = self.superblock.as_ref().map_err(Clone::clone)?;
        if superblock.volume != *volume || superblock.segment != self.number {
            return Err("its superblock is of another segment or volume".to_owned());
        }
        Ok(Cut {
            class: superblock.class,
            generation: superblock.generation,
            seed: superblock.seed,
            segment_bytes: superblock.segment_bytes,
        })
    }

    /// Every slot of a cut, with its header or why it has none.
    pub(super) fn slots<'a>(
        &'a self,
        volume: &'a [u8; 16],
        cut: &'a Cut,
    ) -> impl Iterator<Item = (Place, Result<Slot, String>)> + use<'a> {
        let slots = cut.class.slots_in(cut.segment_bytes.min(self.length_bytes));
        (0..slots).map(move |slot| {
            let place = Place {
                segment: self.number,
                slot: slot as u16,
            };
            (place, self.read_slot(volume, cut, place))
        })
    }

    /// The header of one slot.
    pub(super) fn read_slot(&self, volume: &[u8; 16], cut: &Cut, place: Place) -> Result<Slot, String> {
        let offset_bytes = place.offset_bytes(cut.class);
        let mut page = [0; PAGE_BYTES];
        self.read(&mut page, offset_bytes)?;
        let seed = SlotSeed {
            volume: *volume,
            segment_seed: cut.seed,
            place,
        };
        let header = SlotHeader::decode(&page[..cut.class.header_bytes()], &seed, None)?;
        if Class::for_length(header.length as usize) > cut.class {
            return Err("the slot's header tells of a block that does not fit".to_owned());
        }
        let seal = u32::from_le_bytes(page[4..8].try_into().expect("4 bytes"));
        Ok(Slot {
            header,
            seal,
            offset_bytes,
        })
    }

    fn read(&self, bytes: &mut [u8], offset_bytes: u64) -> Result<(), String> {
        let read = self.file.read_exact_at(bytes, offset_bytes);
        read.map_err(|error| format!("reading it failed: {error}"))
    }
}

impl Slot {
    /// Reads the block and compares each of its units with the header.
    pub(super) fn verify(&self, file: &SegmentFile) -> Result<(), String> {
        let length = self.header.length as usize;
        let mut bytes = vec![0; length];
        let header_bytes = Class::for_length(length).header_bytes();
        file.read(&mut bytes, self.offset_bytes + header_bytes as u64)?;
        for (unit, (bytes, &expected)) in bytes.chunks(UNIT_BYTES).zip(&self.header.unit_crcs).enumerate() {
            let actual = crc(bytes);
            if actual != expected {
                return Err(format!(
                    "unit {unit} has CRC {actual:08x} instead of {expected:08x}"
                ));
            }
        }
        Ok(())
    }

    /// The replica that the header tells of; whether it is wanted nobody knows yet.
    pub(super) fn suspect(&self, place: Place) -> Replica {
        Replica {
            place,
            length: self.header.length,
            crc32c: self.header.crc32c,
            seal: self.seal,
            state: ReplicaState::Suspect,
        }
    }
}
