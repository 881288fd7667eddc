//! The journal's batches as bytes, and the finding of its end. Pure: pages in, records out.
//!
//! The journal is a ring of pages over equal files. A batch takes fresh pages, never crosses a file, and carries its
//! sequence, the CRC of the batch before it, and up to which sequence all was durable when it was written. So a bad
//! batch that a valid later one calls durable was damaged after the fact, and any other bad one is what a crash tore,
//! together with what was in flight behind it.

use crate::checksum::{crc, crc_seeded};
use crate::layout::FORMAT;
use crate::limits::PAGE_BYTES;
use crate::record::{RECORD_BYTES_MAX, Reader, Record};

/// Files of the ring.
pub(crate) const JOURNAL_FILES: u32 = 4;
/// Bytes of the longest batch.
pub(crate) const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a batch before its records.
pub(crate) const BATCH_HEADER_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"BYjb";

/// Records of any kind that fit into one batch.
pub(crate) const BATCH_RECORDS_MAX: usize = (BATCH_BYTES_MAX - BATCH_HEADER_BYTES) / RECORD_BYTES_MAX;

/// The name of a file of the ring.
pub(crate) fn file_name(file: u32) -> String {
    format!("journal/{file:04}.jnl")
}

/// The ring's shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ring {
    /// Pages of each file.
    pub(crate) file_pages: u32,
}

impl Ring {
    /// The ring for a journal of about `bytes`.
    pub(crate) fn of_bytes(bytes: u64) -> Self {
        let least_pages = (2 * BATCH_BYTES_MAX / PAGE_BYTES) as u64;
        let pages = bytes / PAGE_BYTES as u64 / u64::from(JOURNAL_FILES);
        Self {
            file_pages: pages.clamp(least_pages, u64::from(u32::MAX / JOURNAL_FILES)) as u32,
        }
    }

    /// Whether there can be a journal of this shape.
    pub(crate) fn is_possible(self) -> bool {
        (1..=u32::MAX / JOURNAL_FILES).contains(&self.file_pages)
    }

    pub(crate) fn pages(self) -> u32 {
        self.file_pages * JOURNAL_FILES
    }

    pub(crate) fn file_bytes(self) -> u64 {
        u64::from(self.file_pages) * PAGE_BYTES as u64
    }

    /// Which file a page is in, and where in it.
    pub(crate) fn locate(self, page: u32) -> (u32, u64) {
        (
            page / self.file_pages,
            u64::from(page % self.file_pages) * PAGE_BYTES as u64,
        )
    }

    /// Pages from `from` on to `to`, around the ring.
    pub(crate) fn distance(self, from: u32, to: u32) -> u32 {
        if to >= from {
            to - from
        } else {
            to + self.pages() - from
        }
    }

    fn start_of_next_file(self, page: u32) -> u32 {
        ((page / self.file_pages + 1) * self.file_pages) % self.pages()
    }
}

/// The place where the next batch goes, and what it must carry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Head {
    /// The next batch's sequence.
    pub(crate) sequence: u64,
    /// The first page that is free.
    pub(crate) page: u32,
    /// How often the ring was gone around.
    pub(crate) lap: u32,
    /// The CRC of the batch before.
    pub(crate) previous_crc: u32,
}

impl Head {
    /// The head of a journal without batches.
    pub(crate) fn first() -> Self {
        Self {
            sequence: 1,
            ..Self::default()
        }
    }

    /// Whether a journal of this shape can have come to this head; one that can't overflows what is counted here.
    pub(crate) fn is_possible(self, ring: Ring) -> bool {
        (1..1 << 62).contains(&self.sequence) && self.page < ring.pages() && self.lap < 1 << 31
    }

    /// The same head, at a place where `pages` fit without crossing a file.
    pub(crate) fn fitting(self, ring: Ring, pages: u32) -> Self {
        if self.page % ring.file_pages + pages <= ring.file_pages {
            return self;
        }
        self.at_next_file(ring)
    }

    /// Where the batch may stand: here, or (when it did not fit) at the start of the next file.
    pub(crate) fn places(self, ring: Ring) -> impl Iterator<Item = Self> {
        let next = (!self.page.is_multiple_of(ring.file_pages)).then(|| self.at_next_file(ring));
        std::iter::once(self).chain(next)
    }

    fn at_next_file(self, ring: Ring) -> Self {
        let page = ring.start_of_next_file(self.page);
        Self {
            page,
            lap: self.lap + u32::from(page == 0),
            ..self
        }
    }

    fn after(self, ring: Ring, pages: u32, crc: u32) -> Self {
        let end = self.page + pages;
        let wrapped = end >= ring.pages();
        Self {
            sequence: self.sequence + 1,
            page: if wrapped { 0 } else { end },
            lap: self.lap + u32::from(wrapped),
            previous_crc: crc,
        }
    }
}

/// What ties a batch to its volume.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JournalSeed(u32);

impl JournalSeed {
    pub(crate) fn new(volume: &[u8; 16], incarnation: &[u8; 16]) -> Self {
        Self(crc_seeded(crc(volume), incarnation))
    }
}

/// A batch's whole pages, to be written at `head`, and the head behind it. `head` must be `fitting`.
pub(crate) fn encode_batch(
    seed: JournalSeed,
    ring: Ring,
    head: Head,
    durable_through: u64,
    generation: u64,
    records: &[u8],
) -> (Vec<u8>, Head) {
    let length = BATCH_HEADER_BYTES + records.len();
    assert!(length <= BATCH_BYTES_MAX);
    let mut bytes = Vec::with_capacity(length.next_multiple_of(PAGE_BYTES));
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 4]); // the CRC, below
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&head.sequence.to_le_bytes());
    bytes.extend_from_slice(&head.lap.to_le_bytes());
    bytes.extend_from_slice(&head.previous_crc.to_le_bytes());
    bytes.extend_from_slice(&durable_through.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    bytes.extend_from_slice(&head.page.to_le_bytes());
    bytes.resize(BATCH_HEADER_BYTES, 0);
    bytes.extend_from_slice(records);
    let seal = crc_seeded(seed.0, &bytes[8..]);
    bytes[4..8].copy_from_slice(&seal.to_le_bytes());
    bytes.resize(length.next_multiple_of(PAGE_BYTES), 0);
    let pages = (bytes.len() / PAGE_BYTES) as u32;
    (bytes, head.after(ring, pages, seal))
}

/// A batch that passed its CRC; where it belongs is not checked yet.
pub(crate) struct Batch {
    pub(crate) head: Head,
    seal: u32,
    pages: u32,
    pub(crate) durable_through: u64,
    pub(crate) records: Vec<Record>,
}

/// Reads the batch that begins with `bytes`, whatever its sequence.
pub(crate) fn decode_batch(seed: JournalSeed, bytes: &[u8]) -> Option<Batch> {
    let mut reader = Reader(bytes);
    let magic: [u8; 4] = reader.take()?;
    let (seal, format, length) = (reader.u32()?, reader.u32()?, reader.u32()? as usize);
    if magic != MAGIC || !(BATCH_HEADER_BYTES..=BATCH_BYTES_MAX.min(bytes.len())).contains(&length) {
        return None;
    }
    if seal != crc_seeded(seed.0, &bytes[8..length]) || format != FORMAT {
        return None;
    }
    let (sequence, lap, previous_crc) = (reader.u64()?, reader.u32()?, reader.u32()?);
    let (durable_through, _generation, page) = (reader.u64()?, reader.u64()?, reader.u32()?);
    let unnamed: [u8; 12] = reader.take()?;
    // No batch is durable before it is written: believing it would leave puts unverified.
    if durable_through >= sequence || unnamed != [0; 12] {
        return None;
    }
    let mut reader = Reader(&bytes[BATCH_HEADER_BYTES..length]);
    let mut records = Vec::new();
    while !reader.0.is_empty() {
        records.push(Record::decode(&mut reader)?);
    }
    let pages = length.div_ceil(PAGE_BYTES) as u32;
    Some(Batch {
        head: Head {
            sequence,
            page,
            lap,
            previous_crc,
        },
        seal,
        pages,
        durable_through,
        records,
    })
}

/// What following a journal from a head on found.
#[derive(Debug)]
pub(crate) struct Scan {
    /// Records in order, each with its batch's sequence.
    pub(crate) records: Vec<(u64, Record)>,
    /// Where the next batch goes.
    pub(crate) head: Head,
    /// Batches up to here were durable, slots and all, when the last one was written.
    pub(crate) durable_through: u64,
    /// Whether the end is an unfinished batch rather than untouched pages.
    pub(crate) torn_tail_cut: bool,
}

/// Follows the journal (`pages`: the whole ring) from `head`. An error tells what is damaged.
pub(crate) fn scan(seed: JournalSeed, ring: Ring, mut head: Head, pages: &[u8]) -> Result<Scan, String> {
    assert_eq!(pages.len() as u64, ring.file_bytes() * u64::from(JOURNAL_FILES));
    let mut found = Scan {
        records: Vec::new(),
        head,
        durable_through: head.sequence - 1,
        torn_tail_cut: false,
    };
    let start = head;
    while let Some(batch) = next_batch(seed, ring, head, pages) {
        found.durable_through = found.durable_through.max(batch.durable_through);
        found
            .records
            .extend(batch.records.iter().map(|&record| (batch.head.sequence, record)));
        head = batch.head.after(ring, batch.pages, batch.seal);
        if ring.distance(start.page, head.page) == 0 {
            return Err("the journal goes around without an end".to_owned());
        }
    }
    found.head = head;
    for page in 0..ring.pages() {
        let at = page as usize * PAGE_BYTES;
        if pages[at..at + 4] != MAGIC {
            continue;
        }
        if let Some(batch) = decode_batch(seed, within_file(ring, page, pages))
            && batch.durable_through >= head.sequence
        {
            return Err(format!(
                "journal batch {} (page {}) is bad, but was durable when batch {} was written",
                head.sequence, head.page, batch.head.sequence
            ));
        }
    }
    found.torn_tail_cut = is_torn(ring, head, pages);
    Ok(found)
}

/// The bytes from a page to the end of its file: as far as a batch may reach.
fn within_file(ring: Ring, page: u32, pages: &[u8]) -> &[u8] {
    let end = (page / ring.file_pages + 1) * ring.file_pages;
    &pages[page as usize * PAGE_BYTES..end as usize * PAGE_BYTES]
}

/// Follows the batches in `pages`, which lie at `head`, as far as they are whole there and before `until`; the head
/// behind them, or none when not even the first is what must be there.
pub(crate) fn follow(seed: JournalSeed, ring: Ring, head: Head, until: Head, pages: &[u8]) -> Option<Head> {
    let (mut at, mut rest) = (head, pages);
    while at.sequence < until.sequence
        && let Some(batch) = decode_batch(seed, rest).filter(|batch| batch.head == at)
    {
        at = at.after(ring, batch.pages, batch.seal);
        rest = &rest[batch.pages as usize * PAGE_BYTES..];
    }
    (at != head).then_some(at)
}

/// The batch expected at `head`, there or (when it did not fit there) at the start of the next file.
fn next_batch(seed: JournalSeed, ring: Ring, head: Head, pages: &[u8]) -> Option<Batch> {
    head.places(ring).find_map(|place| {
        let batch = decode_batch(seed, within_file(ring, place.page, pages))?;
        (batch.head == place).then_some(batch)
    })
}

/// Whether the first page at `head` holds the beginning of the batch that is missing. Two of the three fields that
/// tell it are enough, because one may be what is damaged; what an older lap left there has one of them at most.
fn is_torn(ring: Ring, head: Head, pages: &[u8]) -> bool {
    let starts = |place: Head| {
        let mut reader = Reader(&within_file(ring, place.page, pages)[8..]);
        let header = (reader.u32(), reader.u32(), reader.u64(), reader.u32());
        let magic = pages[place.page as usize * PAGE_BYTES..][..4] == MAGIC;
        let fields = [
            magic,
            header.2 == Some(head.sequence),
            header.3 == Some(place.lap),
        ];
        fields.into_iter().filter(|&matches| matches).count() >= 2
    };
    starts(head) || (!head.page.is_multiple_of(ring.file_pages) && starts(head.at_next_file(ring)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::any_record;
    use proptest::prelude::*;

    const RING: Ring = Ring { file_pages: 24 };

    fn seed() -> JournalSeed {
        JournalSeed::new(&[1; 16], &[2; 16])
    }

    struct Disk {
        pages: Vec<u8>,
        head: Head,
        /// Where each batch begins, and its pages.
        batches: Vec<(u32, u32)>,
        /// Batches that are in flight when one is written.
        in_flight: u64,
    }

    impl Disk {
        fn new() -> Self {
            Self {
                pages: vec![0; RING.pages() as usize * PAGE_BYTES],
                head: Head::first(),
                batches: Vec::new(),
                in_flight: 0,
            }
        }

        fn write(&mut self, records: &[Record]) {
            let mut body = Vec::new();
            records.iter().for_each(|record| record.encode(&mut body));
            let pages = (BATCH_HEADER_BYTES + body.len()).div_ceil(PAGE_BYTES) as u32;
            let head = self.head.fitting(RING, pages);
            let durable_through = (head.sequence - 1).saturating_sub(self.in_flight);
            let (bytes, next) = encode_batch(seed(), RING, head, durable_through, 1, &body);
            self.pages[head.page as usize * PAGE_BYTES..][..bytes.len()].copy_from_slice(&bytes);
            self.batches.push((head.page, pages));
            self.head = next;
        }

        fn scan(&self, from: Head) -> Result<Scan, String> {
            scan(seed(), RING, from, &self.pages)
        }
    }

    fn batches() -> impl Strategy<Value = Vec<Vec<Record>>> {
        prop::collection::vec(prop::collection::vec(any_record(), 1..200), 1..25)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn a_journal_is_read_back(batches in batches()) {
            let mut disk = Disk::new();
            batches.iter().for_each(|records| disk.write(records));
            let found = disk.scan(Head::first()).unwrap();
            let records: Vec<Record> = found.records.iter().map(|&(_, record)| record).collect();
            prop_assert_eq!(records, batches.concat());
            prop_assert_eq!((found.head, found.torn_tail_cut), (disk.head, false));
            prop_assert_eq!(found.durable_through, batches.len() as u64 - 1);
        }

        #[test]
        fn a_torn_tail_is_cut_and_a_bad_middle_is_damage(
            batches in batches(), pick in any::<prop::sample::Index>(), sector in any::<prop::sample::Index>(),
            in_flight in 0..3usize,
        ) {
            let mut disk = Disk::new();
            disk.in_flight = in_flight as u64;
            batches.iter().for_each(|records| disk.write(records));
            let bad = pick.index(batches.len());
            let (page, pages) = disk.batches[bad];
            // Clear a sector that holds bytes of the batch.
            let bytes = &mut disk.pages[page as usize * PAGE_BYTES..][..pages as usize * PAGE_BYTES];
            let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() / 512 + 1;
            let at = sector.index(used) * 512;
            prop_assume!(bytes[at..at + 512].iter().any(|&byte| byte != 0));
            bytes[at..at + 512].fill(0);
            match disk.scan(Head::first()) {
                Ok(found) => {
                    prop_assert!(bad + 1 + in_flight >= batches.len());
                    prop_assert_eq!(found.records.len(), batches[..bad].concat().len());
                    prop_assert_eq!(found.head.sequence, bad as u64 + 1);
                }
                Err(_) => prop_assert!(bad + 1 + in_flight < batches.len()),
            }
        }

        #[test]
        fn garbage_is_an_empty_journal(bytes in prop::collection::vec(any::<u8>(), 4096)) {
            let mut disk = Disk::new();
            for page in disk.pages.chunks_mut(4096) {
                page.copy_from_slice(&bytes);
            }
            prop_assert!(disk.scan(Head::first()).unwrap().records.is_empty());
        }
    }

    #[test]
    fn laps_follow_each_other() {
        let mut disk = Disk::new();
        let record = [Record::Delete {
            block: crate::block::BlockId(1),
        }; 900];
        let mut from = disk.head;
        for round in 0..200 {
            if round % 10 == 0 {
                from = disk.head;
            }
            disk.write(&record);
            let found = disk.scan(from).unwrap();
            assert_eq!(
                (found.head, found.records.len() / 900),
                (disk.head, round % 10 + 1)
            );
        }
        assert!(disk.head.lap > 2);
    }

    #[test]
    fn a_batch_of_another_history_is_not_followed() {
        let delete = |block| {
            [Record::Delete {
                block: crate::block::BlockId(block),
            }]
        };
        let (mut disk, mut other) = (Disk::new(), Disk::new());
        disk.write(&delete(1));
        other.write(&delete(2));
        // The same place, lap and sequence, but what came before is not what it followed.
        other.write(&delete(3));
        let page = PAGE_BYTES..2 * PAGE_BYTES;
        disk.pages[page.clone()].copy_from_slice(&other.pages[page]);
        let found = disk.scan(Head::first()).unwrap();
        assert_eq!(found.records, [(1, delete(1)[0])]);
    }

    #[test]
    fn another_volumes_journal_is_not_read() {
        let mut disk = Disk::new();
        disk.write(&[Record::Delete {
            block: crate::block::BlockId(1),
        }]);
        let other = JournalSeed::new(&[1; 16], &[3; 16]);
        assert!(
            scan(other, RING, Head::first(), &disk.pages)
                .unwrap()
                .records
                .is_empty()
        );
    }

    #[test]
    fn a_flipped_bit_of_the_last_batch_is_told_as_a_torn_tail() {
        for before in [1, 23] {
            // The second time the page was used a lap ago.
            let mut disk = Disk::new();
            let mut from = disk.head;
            for block in 0..before + u64::from(RING.pages()) * (before / 23) {
                from = if block % 20 == 0 { disk.head } else { from };
                let block = crate::block::BlockId(block);
                disk.write(&[Record::Delete { block }]);
            }
            let &(page, _) = disk.batches.last().unwrap();
            let length = BATCH_HEADER_BYTES + 12;
            for bit in 0..length * 8 {
                let at = page as usize * PAGE_BYTES + bit / 8;
                disk.pages[at] ^= 1 << (bit % 8);
                let found = disk.scan(from).unwrap();
                assert!(found.torn_tail_cut, "bit {bit}");
                assert_eq!(found.head.page, page);
                disk.pages[at] ^= 1 << (bit % 8);
            }
            assert!(!disk.scan(from).unwrap().torn_tail_cut);
        }
    }
}
