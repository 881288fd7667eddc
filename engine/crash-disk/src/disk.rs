//! A disk in memory: what is durable, what is pending, what a power cut may leave. Knows no FUSE.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

const PAGE_BYTES: usize = 4096;
/// What the medium writes whole or not at all.
pub const SECTOR_BYTES: usize = 512;

type Page = [u8; PAGE_BYTES];

/// The bytes of a disk. Pages are shared between copies, so that a copy costs no more than a list.
#[derive(Clone)]
pub struct Image {
    pages: Vec<Option<Arc<Page>>>,
}

impl Image {
    /// All zeros.
    pub fn new(length_bytes: u64) -> Self {
        Self {
            pages: vec![None; length_bytes as usize / PAGE_BYTES],
        }
    }

    pub fn length_bytes(&self) -> u64 {
        (self.pages.len() * PAGE_BYTES) as u64
    }

    pub fn read(&self, offset_bytes: u64, into: &mut [u8]) {
        for (part, page, at) in parts(offset_bytes, into.len()) {
            let into = &mut into[part];
            match &self.pages[page] {
                Some(bytes) => into.copy_from_slice(&bytes[at..at + into.len()]),
                None => into.fill(0),
            }
        }
    }

    pub fn write(&mut self, offset_bytes: u64, from: &[u8]) {
        for (part, page, at) in parts(offset_bytes, from.len()) {
            let from = &from[part];
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[at..at + from.len()].copy_from_slice(from);
        }
    }
}

/// A range cut at pages: part of the range, page, where in the page.
fn parts(offset_bytes: u64, length: usize) -> impl Iterator<Item = (std::ops::Range<usize>, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let offset = offset_bytes as usize + done;
        let (page, at) = (offset / PAGE_BYTES, offset % PAGE_BYTES);
        let part = done..(done + PAGE_BYTES - at).min(length);
        done = part.end;
        (!part.is_empty()).then_some((part, page, at))
    })
}

/// A write that no flush covers yet.
#[derive(Clone)]
pub struct Unflushed {
    request: u64,
    offset_bytes: u64,
    bytes: Arc<[u8]>,
    /// Whether its end was told: a flush covers only what had ended before.
    ended: bool,
}

/// What a request asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    Read,
    Write,
    Flush,
}

/// What this disk may do wrong. Writes are chosen by their first bytes: the magic of a slot or a batch.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The nth request of a kind (from 1) fails, or all from there on.
    Fail { verb: Verb, nth: u64, for_ever: bool },
    /// The nth write that begins so is acknowledged and forgotten.
    Lose { magic: [u8; 4], nth: u64 },
    /// The nth write that begins so goes to where the one before it went.
    Misdirect { magic: [u8; 4], nth: u64 },
    /// Flushes are acknowledged, and leave all writes out, or those that begin so.
    ForgetFlushed { magic: Option<[u8; 4]> },
}

/// A moment at which the power may have failed.
#[derive(Clone)]
pub struct Cut {
    /// Requests served before.
    pub request: u64,
    /// Length of the log of what was acknowledged by then.
    pub log_bytes: u64,
    durable: Image,
    unflushed: Vec<Unflushed>,
}

/// Which of the unflushed writes a power cut leaves.
#[derive(Clone, Copy, Debug)]
pub enum Leaves {
    /// Only what was flushed.
    Nothing,
    /// Everything: the process died, the disk did not.
    All,
    /// What came before a random one.
    Prefix,
    /// Each write, page or sector by its own throw of the dice.
    Some { grain_bytes: usize, per_mille: u32 },
}

impl Leaves {
    /// The nth kind of a power cut: the extremes first.
    pub fn nth(nth: u64, rng: &mut SmallRng) -> Self {
        match nth {
            0 => Self::Nothing,
            1 => Self::All,
            _ if rng.random_ratio(1, 4) => Self::Prefix,
            _ => Self::Some {
                grain_bytes: [SECTOR_BYTES, PAGE_BYTES, 1 << 30][rng.random_range(0..3)],
                per_mille: [20, 200, 500, 800, 980][rng.random_range(0..5)],
            },
        }
    }
}

impl Cut {
    /// The disk after this cut, and a fingerprint by which equal ones are known.
    pub fn leaving(&self, leaves: Leaves, rng: &mut SmallRng) -> (Image, u64) {
        let mut image = self.durable.clone();
        let mut touched = BTreeSet::new();
        let prefix = rng.random_range(0..=self.unflushed.len());
        for (at, write) in self.unflushed.iter().enumerate() {
            let grain = match leaves {
                Leaves::Nothing => continue,
                Leaves::Prefix if at >= prefix => continue,
                Leaves::All | Leaves::Prefix => usize::MAX >> 1,
                Leaves::Some { grain_bytes, .. } => grain_bytes,
            };
            let mut offset = write.offset_bytes;
            for part in write.bytes.chunks(grain) {
                let kept = match leaves {
                    Leaves::Some { per_mille, .. } => rng.random_ratio(per_mille, 1000),
                    _ => true,
                };
                if kept {
                    image.write(offset, part);
                    touched.extend(
                        (offset..offset + part.len() as u64)
                            .step_by(SECTOR_BYTES)
                            .map(|at| at / SECTOR_BYTES as u64),
                    );
                }
                offset += part.len() as u64;
            }
        }
        let mut hasher = DefaultHasher::new();
        let mut sector = [0; SECTOR_BYTES];
        let mut before = [0; SECTOR_BYTES];
        for at in touched {
            image.read(at * SECTOR_BYTES as u64, &mut sector);
            self.durable.read(at * SECTOR_BYTES as u64, &mut before);
            if sector != before {
                (at, sector).hash(&mut hasher);
            }
        }
        (image, hasher.finish())
    }
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    Failed,
}

/// The disk.
pub struct Disk {
    now: Image,
    durable: Image,
    unflushed: Vec<Unflushed>,
    rng: SmallRng,
    off: bool,
    faults: Vec<Fault>,
    requests: u64,
    verbs: [u64; 3],
    /// Writes of a magic so far, per fault, and where the last of them went.
    magics: Vec<(u64, u64)>,
    /// Faults that have struck.
    struck: u64,
    cuts_max: usize,
    cuts: Vec<Cut>,
}

impl Disk {
    pub fn new(length_bytes: u64) -> Self {
        let blank = Image::new(length_bytes);
        Self {
            now: blank.clone(),
            durable: blank,
            unflushed: Vec::new(),
            rng: SmallRng::seed_from_u64(0),
            off: false,
            faults: Vec::new(),
            requests: 0,
            verbs: [0; 3],
            magics: Vec::new(),
            struck: 0,
            cuts_max: 0,
            cuts: Vec::new(),
        }
    }

    pub fn length_bytes(&self) -> u64 {
        self.now.length_bytes()
    }

    /// Starts over from `image`, all of it durable.
    pub fn load(&mut self, image: Image, seed: u64) {
        *self = Self {
            now: image.clone(),
            durable: image,
            rng: SmallRng::seed_from_u64(seed),
            ..Self::new(0)
        };
    }

    /// From here on up to `cuts_max` moments are remembered, out of all that follow.
    pub fn remember(&mut self, cuts_max: usize) {
        self.cuts_max = cuts_max;
        self.verbs = [0; 3];
    }

    /// What a reader sees.
    pub fn image(&self) -> Image {
        self.now.clone()
    }

    /// From here on the disk does this wrong; counting starts here.
    pub fn break_with(&mut self, faults: &[Fault]) {
        self.faults = faults.to_vec();
        self.magics = vec![(0, 0); faults.len()];
        self.verbs = [0; 3];
        self.struck = 0;
    }

    pub fn faults_struck(&self) -> u64 {
        self.struck
    }

    /// Cuts the power for good: every later request fails.
    pub fn power_off(&mut self, log_bytes: u64) -> Cut {
        self.off = true;
        self.cut(log_bytes)
    }

    pub fn take_cuts(&mut self) -> Vec<Cut> {
        self.cuts_max = 0;
        let mut cuts = std::mem::take(&mut self.cuts);
        cuts.sort_by_key(|cut| cut.request);
        cuts
    }

    pub fn requests(&self) -> u64 {
        self.requests
    }

    fn cut(&self, log_bytes: u64) -> Cut {
        Cut {
            request: self.requests,
            log_bytes,
            durable: self.durable.clone(),
            unflushed: self.unflushed.clone(),
        }
    }

    pub fn read(&mut self, offset_bytes: u64, into: &mut [u8]) -> Answer {
        if self.begin(Verb::Read) == Answer::Failed {
            return Answer::Failed;
        }
        self.now.read(offset_bytes, into);
        Answer::Done
    }

    /// Takes a write; its end must be told by [`Disk::write_ended`] under the number returned.
    pub fn write(&mut self, offset_bytes: u64, bytes: &[u8]) -> (Answer, u64) {
        let answer = self.begin(Verb::Write);
        if answer == Answer::Failed {
            return (answer, self.requests);
        }
        if let Some(offset_bytes) = self.led_astray(offset_bytes, bytes) {
            self.now.write(offset_bytes, bytes);
            self.unflushed.push(Unflushed {
                request: self.requests,
                offset_bytes,
                bytes: bytes.into(),
                ended: false,
            });
        }
        (Answer::Done, self.requests)
    }

    pub fn write_ended(&mut self, request: u64) {
        if let Some(write) = self.unflushed.iter_mut().find(|write| write.request == request) {
            write.ended = true;
        }
    }

    /// Makes all writes durable that have ended.
    pub fn flush(&mut self) -> Answer {
        if self.begin(Verb::Flush) == Answer::Failed {
            return Answer::Failed;
        }
        let faults = &self.faults;
        let mut forgotten = 0;
        let mut takes = |write: &Unflushed| {
            let forgets = |fault: &Fault| match fault {
                Fault::ForgetFlushed { magic: Some(magic) } => write.bytes.starts_with(magic),
                Fault::ForgetFlushed { magic: None } => true,
                _ => false,
            };
            let is_forgotten = write.ended && faults.iter().any(forgets);
            forgotten += u64::from(is_forgotten);
            write.ended && !is_forgotten
        };
        self.unflushed.retain(|write| {
            let is_flushed = takes(write);
            if is_flushed {
                self.durable.write(write.offset_bytes, &write.bytes);
            }
            !is_flushed
        });
        self.struck += forgotten;
        Answer::Done
    }

    /// Whether to remember this moment: each of all so far has the same chance. Asked before each write and flush.
    pub fn wants_cut(&mut self) -> bool {
        self.cuts_max > 0 && {
            let changes = self.verbs[Verb::Write as usize] + self.verbs[Verb::Flush as usize];
            self.cuts.len() < self.cuts_max || self.rng.random_range(0..=changes) < self.cuts_max as u64
        }
    }

    pub fn remember_cut(&mut self, log_bytes: u64) {
        let cut = self.cut(log_bytes);
        if self.cuts.len() < self.cuts_max {
            self.cuts.push(cut);
        } else {
            let at = self.rng.random_range(0..self.cuts_max);
            self.cuts[at] = cut;
        }
    }

    fn begin(&mut self, asked: Verb) -> Answer {
        self.requests += 1;
        self.verbs[asked as usize] += 1;
        let count = self.verbs[asked as usize];
        let fails = self.faults.iter().any(|fault| match *fault {
            Fault::Fail { verb, nth, for_ever } => verb == asked && (count == nth || for_ever && count > nth),
            _ => false,
        });
        self.struck += u64::from(fails);
        if self.off || fails {
            Answer::Failed
        } else {
            Answer::Done
        }
    }

    /// Where a write really goes; None when it is lost.
    fn led_astray(&mut self, offset_bytes: u64, bytes: &[u8]) -> Option<u64> {
        let mut goes_to = Some(offset_bytes);
        for (fault, (count, last)) in self.faults.iter().zip(&mut self.magics) {
            let (Fault::Lose { magic, nth } | Fault::Misdirect { magic, nth }) = *fault else {
                continue;
            };
            if !bytes.starts_with(&magic) {
                continue;
            }
            *count += 1;
            if *count == nth {
                self.struck += 1;
                goes_to = match fault {
                    Fault::Misdirect { .. } => Some(*last),
                    _ => None,
                };
            }
            *last = offset_bytes;
        }
        goes_to
    }
}
