//! Flips bits in place, opens the volume, judges what it says, and puts everything back.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use blockyard_engine::block::BlockId;
use blockyard_engine::{Error, Finding, Kind, Lane, OpenReport, Result, Scrub, Volume, exec};
use rand::RngExt;
use rand::rngs::StdRng;

use super::Tally;
use super::made::{Made, Said};
use super::map::{Area, Map, PAGE, Part, Seat};
use crate::common::{CLUSTER, MIB, content};

const UNIT: u64 = 64 << 10;

/// How a flip came out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum How {
    /// The volume is not opened.
    Refused,
    /// An older checkpoint is used, which the opening says; nothing differs.
    FellBack,
    /// The last batch counts as torn, which the opening says: nothing tells a write that a crash cut short.
    Torn,
    /// The read fails.
    Read,
    /// The opening doubts the replica.
    Suspect,
    /// The scrub finds it.
    Scrub,
    /// The opening wrote it again.
    Mended,
    /// Nothing depends on it.
    Nothing,
}

impl How {
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused at the opening",
            Self::FellBack => "fell back, exact and told",
            Self::Torn => "cut as a torn tail, told",
            Self::Read => "read error and scrub",
            Self::Suspect => "suspect at the opening",
            Self::Scrub => "found by the scrub",
            Self::Mended => "mended by the opening",
            Self::Nothing => "without effect",
        }
    }
}

type Flip<'a> = (&'a str, u64);

pub struct Judge<'a> {
    made: &'a Made,
    pub map: Map,
    root: PathBuf,
    /// Every file but segments, whole; of these the first page.
    pristine: BTreeMap<String, Vec<u8>>,
    segments_hash: u64,
    served: BTreeMap<u64, Vec<u8>>,
    /// What an opening notes of the machine, not of the volume.
    usual_notes: usize,
}

impl<'a> Judge<'a> {
    pub fn new(made: &'a Made, killed: bool) -> Self {
        let root = made.dir.path().to_owned();
        let lengths = made.said.served();
        let map = Map::of(&root, &lengths, killed);
        let mut pristine = BTreeMap::new();
        for folder in ["", "journal/"] {
            for entry in fs::read_dir(root.join(folder)).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_file() {
                    let name = format!("{folder}{}", path.file_name().expect("a name").to_string_lossy());
                    pristine.insert(name, fs::read(path).expect("a file"));
                }
            }
        }
        for name in &map.segments {
            pristine.insert(name.clone(), read_at(&root.join(name), 0, PAGE));
        }
        let served = lengths
            .iter()
            .map(|(&block, &length)| (block, content(block, length)))
            .collect();
        let mut judge = Self {
            made,
            segments_hash: segments_hash(&root, &map),
            root,
            map,
            pristine,
            served,
            usual_notes: 0,
        };
        let (volume, report) = judge.open().expect("opening it untouched");
        assert!(Said::by(&volume) == made.said && report.suspects.is_empty() && !report.torn_tail_cut);
        judge.usual_notes = report.notes.len();
        drop(volume);
        judge.restore();
        judge
    }

    fn open(&self) -> Result<(Volume, OpenReport)> {
        Volume::open(self.made.options.clone(), Some(CLUSTER))
    }

    fn file(&self, name: &str) -> File {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.root.join(name));
        file.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn flip(&self, flips: &[Flip<'_>]) {
        for &(name, bit) in flips {
            let file = self.file(name);
            let mut byte = [0];
            file.read_exact_at(&mut byte, bit / 8).expect("reading a byte");
            byte[0] ^= 1 << (bit % 8);
            file.write_all_at(&byte, bit / 8).expect("writing a byte");
        }
    }

    /// Puts back all but slots, which nothing here writes.
    fn restore(&self) {
        for entry in fs::read_dir(&self.root).expect("the volume") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_file() && !self.pristine.contains_key(&name) {
                fs::remove_file(path).expect("removing a file");
            }
        }
        for (name, bytes) in &self.pristine {
            let path = self.root.join(name);
            if name.starts_with("segments") {
                if &read_at(&path, 0, PAGE) != bytes {
                    self.file(name)
                        .write_all_at(bytes, 0)
                        .expect("writing a superblock");
                }
            } else if fs::read(&path).ok().as_ref() != Some(bytes) {
                fs::write(&path, bytes).expect("writing a file");
            }
        }
    }

    /// Flips, judges, flips back. A panic is a finding like any other.
    fn trial(
        &self,
        flips: &[Flip<'_>],
        part: Part,
        tally: &mut Tally,
        judge: impl FnOnce(&mut Tally) -> Result<(), String>,
    ) {
        self.flip(flips);
        let judged = catch_unwind(AssertUnwindSafe(|| judge(tally)));
        let slots: Vec<Flip<'_>> = flips
            .iter()
            .filter(|(name, bit)| name.starts_with("segments") && bit / 8 >= PAGE as u64)
            .copied()
            .collect();
        self.flip(&slots);
        self.restore();
        let failed = judged.unwrap_or_else(|_| Err("it panicked".to_owned()));
        if let Err(what) = failed {
            let (name, bit) = flips[0];
            tally.failures.push(format!(
                "{}: {name} byte {} bit {} ({} flips): {what}",
                part.name(),
                bit / 8,
                bit % 8,
                flips.len()
            ));
        }
    }

    /// A bit that stands for itself.
    pub fn metadata(&mut self, area: &Area, bit: u64, tally: &mut Tally) {
        let flips = [(area.file.as_str(), area.at * 8 + bit)];
        self.trial(&flips, area.part, tally, |tally| {
            let how = self.one(area.part, flips[0])?;
            let mut part = area.part;
            if how == How::Nothing && self.only_changes_case(area, flips[0].1) {
                part = Part::VolumeTomlSpare;
            }
            if how == How::Nothing && part.matters() {
                return Err("undetected".to_owned());
            }
            if how != How::Nothing
                && !part.matters()
                && !(part == Part::VolumeTomlSpare && how == How::Refused)
            {
                return Err(format!("{how:?}, where nothing should depend on it"));
            }
            tally.count(part, how);
            Ok(())
        });
    }

    /// Ids are hexadecimal, so capitals mean the same.
    fn only_changes_case(&self, area: &Area, bit: u64) -> bool {
        let byte = self.pristine[&area.file].get(bit as usize / 8).copied();
        area.part == Part::VolumeToml && bit % 8 == 5 && byte.is_some_and(|byte| byte.is_ascii_alphabetic())
    }

    fn one(&self, part: Part, flip: Flip<'_>) -> Result<How, String> {
        let (volume, report) = match self.open() {
            Err(error) if error.kind() == Kind::Fatal => return Ok(How::Refused),
            Err(error) => return Err(format!("refused, but as {:?}: {error}", error.kind())),
            Ok(opened) => opened,
        };
        let said = Said::by(&volume);
        let mut lost = None;
        if said != self.made.said {
            let is_older = part == Part::LastBatch && Some(&said) == self.made.before_last.as_ref();
            if !is_older {
                return Err("the volume says something else".to_owned());
            }
            if !report.torn_tail_cut {
                return Err("the last batch is gone without a word".to_owned());
            }
            lost = Some(said.served());
        }
        for (&block, bytes) in &self.served {
            if lost.as_ref().is_some_and(|left| !left.contains_key(&block)) {
                continue;
            }
            let found = get(&volume, block, 0, bytes.len() as u64);
            if found.map_err(|error| error.to_string())? != *bytes {
                return Err(format!("block {block} came back different"));
            }
        }
        for &block in &self.made.deleted {
            if !matches!(get(&volume, block, 0, 1), Err(Error::NotFound { .. })) {
                return Err(format!("deleted block {block} came back"));
            }
        }
        let identity = volume.identity();
        let text = String::from_utf8_lossy(&self.pristine["volume.toml"]);
        let hex = |bytes: [u8; 16]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        if !text.contains(&hex(identity.volume)) || !text.contains(&hex(identity.incarnation)) {
            return Err("it is another volume".to_owned());
        }
        if lost.is_some() {
            return Ok(How::Torn);
        }
        if report.notes.len() > self.usual_notes {
            return Ok(How::FellBack);
        }
        // What the record of the last scrub says may be wrong for that pass, and no longer.
        let mut passes = 1;
        let mut scrub = match part {
            Part::ScrubToml => {
                passes = 2;
                Scrub::resume(&volume)
            }
            _ => self.new_scrub(&volume),
        };
        loop {
            let step = exec::run(&volume, scrub.step(MIB)).map_err(|error| error.to_string())?;
            match step.findings.first() {
                Some(Finding::Metadata { what, repaired: true }) if names(what, flip.0) => {
                    return Ok(How::Scrub);
                }
                Some(other) => return Err(format!("the scrub finds something else: {other:?}")),
                None => passes -= u32::from(step.pass_ended),
            }
            if passes == 0 {
                return Ok(How::Nothing);
            }
        }
    }

    /// A pass from its beginning.
    fn new_scrub(&self, volume: &Volume) -> Scrub {
        let _ = fs::remove_file(self.root.join("scrub.toml"));
        Scrub::resume(volume)
    }

    /// The same bit of all superblocks.
    pub fn superblocks(&mut self, bit: u64, part: Part, tally: &mut Tally) {
        let flips: Vec<Flip<'_>> = self
            .map
            .segments
            .iter()
            .map(|name| (name.as_str(), bit))
            .collect();
        self.trial(&flips, part, tally, |tally| {
            let (volume, _) = self.open().map_err(|error| error.to_string())?;
            if Said::by(&volume) != self.made.said {
                return Err("the volume says something else".to_owned());
            }
            let is_whole = |name: &String| read_at(&self.root.join(name), 0, PAGE) == self.pristine[name];
            let mended: Vec<bool> = self.map.segments.iter().map(is_whole).collect();
            let step = exec::run(&volume, self.new_scrub(&volume).step(MIB));
            let findings = step.map_err(|error| error.to_string())?.findings;
            for (number, mended) in mended.into_iter().enumerate() {
                let about = format!("the superblock of segment {number} is damaged");
                let found = findings.iter().any(
                    |finding| matches!(finding, Finding::Metadata { what, repaired: true } if *what == about),
                );
                match (mended, found) {
                    (true, false) => tally.count(part, How::Mended),
                    (false, true) => tally.count(part, How::Scrub),
                    _ => return Err(format!("segment {number}: mended {mended}, found {found}")),
                }
            }
            if !self.map.segments.iter().all(is_whole) {
                return Err("the scrub did not mend it".to_owned());
            }
            Ok(())
        });
    }

    /// The same bit of all headers that have it.
    pub fn headers(&mut self, bit: u64, tally: &mut Tally) {
        let seats: Vec<&Seat> = self
            .map
            .seats
            .iter()
            .filter(|seat| bit < seat.header_bytes * 8)
            .collect();
        let flips: Vec<(&Seat, u64, (u64, u64))> = seats
            .iter()
            .map(|&seat| (seat, seat.header_at * 8 + bit, (0, 1)))
            .collect();
        self.replicas(&flips, Part::SlotHeader, tally);
    }

    /// A random bit in each of some blocks.
    pub fn blocks(&mut self, blocks: usize, random: &mut StdRng, tally: &mut Tally) {
        let flips: Vec<(&Seat, u64, (u64, u64))> = self.map.seats[..blocks]
            .iter()
            .map(|seat| {
                let bit = random.random_range(0..seat.length * 8);
                // Any byte of the unit must not be had.
                let unit = bit / 8 / UNIT * UNIT;
                let unit_end = (unit + UNIT).min(seat.length);
                let from = random.random_range(unit..unit_end);
                let length = random.random_range(1..=unit_end - from);
                (seat, seat.data_at * 8 + bit, (from, length))
            })
            .collect();
        self.replicas(&flips, Part::Data, tally);
    }

    /// Flips in different slots at once, each with a range of its block that must fail.
    fn replicas(&self, replicas: &[(&Seat, u64, (u64, u64))], part: Part, tally: &mut Tally) {
        let flips: Vec<Flip<'_>> = replicas
            .iter()
            .map(|(seat, bit, _)| (seat.file.as_str(), *bit))
            .collect();
        self.trial(&flips, part, tally, |tally| {
            let (volume, report) = self.open().map_err(|error| error.to_string())?;
            let is_suspect = |block| report.suspects.contains(&BlockId(block));
            for &(seat, _, (from, length)) in replicas {
                let mut others = (0..seat.length).step_by(UNIT as usize);
                let other = others.find(|&unit| unit != from / UNIT * UNIT);
                if let (Part::Data, Some(other)) = (part, other) {
                    let end = (other + UNIT).min(seat.length);
                    let found =
                        get(&volume, seat.block, other, end - other).map_err(|error| error.to_string())?;
                    if found != self.served[&seat.block][other as usize..end as usize] {
                        return Err(format!("block {}: another unit came back different", seat.block));
                    }
                }
                // The second time it is known.
                for _ in 0..2 {
                    let how = match get(&volume, seat.block, from, length) {
                        Err(Error::Corrupt { .. }) => How::Read,
                        Err(Error::Suspect { .. }) if is_suspect(seat.block) => How::Suspect,
                        Err(error) => return Err(format!("block {}: {error}", seat.block)),
                        Ok(_) => return Err(format!("block {} is read in spite of it", seat.block)),
                    };
                    let known = volume.lookup(BlockId(seat.block)).map(|one| one.state);
                    let expected = match how {
                        How::Suspect => blockyard_engine::ReplicaState::Suspect,
                        _ => blockyard_engine::ReplicaState::Corrupt,
                    };
                    if known != Some(expected) {
                        return Err(format!("block {} is served again", seat.block));
                    }
                }
            }
            for (&block, bytes) in &self.served {
                if part == Part::SlotHeader && replicas.iter().all(|(seat, ..)| seat.block != block) {
                    let found = get(&volume, block, 0, bytes.len() as u64);
                    if found.map_err(|error| error.to_string())? != *bytes {
                        return Err(format!("block {block}, which is whole, came back different"));
                    }
                }
            }
            drop(volume);
            // Again without the memory of these reads: now the scrub has to find them.
            self.restore();
            let (volume, report) = self.open().map_err(|error| error.to_string())?;
            let mut scrub = self.new_scrub(&volume);
            let mut found: Vec<u64> = Vec::new();
            loop {
                let step = exec::run(&volume, scrub.step(MIB)).map_err(|error| error.to_string())?;
                for finding in step.findings {
                    match finding {
                        Finding::Replica { block, .. } => found.push(block.0),
                        other => return Err(format!("the scrub finds {other:?}")),
                    }
                }
                if step.pass_ended {
                    break;
                }
            }
            let is_suspect = |block| report.suspects.contains(&BlockId(block));
            for (seat, ..) in replicas {
                match (found.contains(&seat.block), is_suspect(seat.block)) {
                    (true, false) => tally.count(part, How::Read),
                    (false, true) => tally.count(part, How::Suspect),
                    _ => return Err(format!("the scrub overlooks block {}", seat.block)),
                }
            }
            if found.len() + report.suspects.len() != replicas.len() {
                return Err("the scrub finds too much".to_owned());
            }
            Ok(())
        });
    }

    /// Whether all is as it was.
    pub fn finish(&self, tally: &mut Tally) {
        if segments_hash(&self.root, &self.map) != self.segments_hash {
            tally.failures.push("slots were written".to_owned());
        }
    }
}

fn get(volume: &Volume, block: u64, offset: u64, length: u64) -> Result<Vec<u8>> {
    let wanted = volume.get(BlockId(block), offset as u32, length as u32, Lane::Read);
    let verified = exec::run(volume, wanted)?;
    let from = offset as usize - verified.offset as usize;
    Ok(verified.data[from..from + length as usize].to_vec())
}

/// Whether a finding is about this file.
fn names(what: &str, file: &str) -> bool {
    match file.split('/').next() {
        Some("journal") => what.starts_with("journal batch"),
        _ => what.starts_with(file),
    }
}

fn read_at(path: &Path, at: u64, bytes: usize) -> Vec<u8> {
    let mut found = vec![0; bytes];
    let file = File::open(path).expect("a file");
    file.read_exact_at(&mut found, at).expect("reading a file");
    found
}

fn segments_hash(root: &Path, map: &Map) -> u64 {
    let mut hasher = DefaultHasher::new();
    for name in &map.segments {
        fs::read(root.join(name)).expect("a segment").hash(&mut hasher);
    }
    hasher.finish()
}
