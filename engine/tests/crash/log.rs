//! The log of what a volume was asked and what it acknowledged: lines appended to a file, and what they oblige to.
//!
//! A line is written before its operation begins, and another after it was acknowledged, each in one system call: so
//! the file's length at any moment says what was acknowledged by then, also to another process.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// What is known of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Its put has begun: it may be there.
    Begun,
    /// It must be there.
    Put,
    /// Its delete has begun: it may be gone.
    Leaving,
    /// It must not be there.
    Gone,
}

/// A line.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    Block {
        block: u64,
        length: usize,
        fate: Fate,
    },
    /// Something that must not be.
    Finding(&'a str),
    /// Something that the volume said it can't do.
    Refusal(&'a str),
    /// Acknowledged blocks that were verified, and suspects seen, by a check that came to its end.
    Checked {
        blocks: u64,
        suspects: u64,
    },
}

/// A log that is being written.
pub struct Log(File);

impl Log {
    pub fn append(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    pub fn write(&mut self, event: Event) {
        let line = match event {
            Event::Block { block, length, fate } => format!("{} {block} {length}\n", letter(fate)),
            Event::Finding(what) => format!("! {}\n", what.replace('\n', " ")),
            Event::Refusal(what) => format!("x {}\n", what.replace('\n', " ")),
            Event::Checked { blocks, suspects } => format!("= {blocks} {suspects}\n"),
        };
        self.0.write_all(line.as_bytes()).expect("writing the log");
    }

    pub fn block(&mut self, block: u64, length: usize, fate: Fate) {
        self.write(Event::Block { block, length, fate });
    }
}

fn letter(fate: Fate) -> char {
    match fate {
        Fate::Begun => 'b',
        Fate::Put => 'P',
        Fate::Leaving => 'l',
        Fate::Gone => 'G',
    }
}

/// What a log says.
#[derive(Default, Debug)]
pub struct Known {
    /// Length and fate of each block.
    pub blocks: BTreeMap<u64, (usize, Fate)>,
    pub findings: Vec<String>,
    pub refusals: Vec<String>,
    /// Checks that came to their end, acknowledged blocks that they verified, suspects that they saw.
    pub checks: u64,
    pub verified: u64,
    pub suspects: u64,
    /// Acknowledgements in the log: puts, deletes.
    pub acknowledged: (u64, u64),
}

impl Known {
    /// Reads a log; a last line without its end does not count.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let mut known = Self::default();
        for line in text.split_inclusive('\n') {
            if let Some(line) = line.strip_suffix('\n') {
                known.take(line);
            }
        }
        Ok(known)
    }

    fn take(&mut self, line: &str) {
        let (kind, rest) = line.split_at(1);
        let mut numbers = rest.split_whitespace().map_while(|word| word.parse::<u64>().ok());
        let mut number = || numbers.next().unwrap_or(0);
        let fate = match kind {
            "b" => Fate::Begun,
            "P" => Fate::Put,
            "l" => Fate::Leaving,
            "G" => Fate::Gone,
            "=" => {
                self.checks += 1;
                self.verified += number();
                self.suspects += number();
                return;
            }
            "x" => return self.refusals.push(rest.trim().to_owned()),
            _ => return self.findings.push(rest.trim().to_owned()),
        };
        let (block, length) = (number(), number() as usize);
        match (fate, self.blocks.get(&block)) {
            (Fate::Put, Some((_, Fate::Begun))) => self.acknowledged.0 += 1,
            (Fate::Gone, Some((_, Fate::Leaving))) => self.acknowledged.1 += 1,
            _ => {}
        }
        self.blocks.insert(block, (length, fate));
    }

    /// The first id that was never used.
    pub fn next_block(&self) -> u64 {
        self.blocks.keys().next_back().map_or(1, |last| last + 1)
    }
}
