//! Lays out the volume that the tests keep, for looking at its bytes: `golden FOLDER`, which must be missing or empty.

#[path = "../tests/golden/listing.rs"]
mod listing;

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = PathBuf::from(std::env::args_os().nth(1).ok_or("name a folder")?);
    std::fs::create_dir_all(&dir)?;
    if std::fs::read_dir(&dir)?.next().is_some() {
        return Err(format!("{} is not empty", dir.display()).into());
    }
    listing::lay_out(listing::BEFORE, &dir);
    Ok(())
}
