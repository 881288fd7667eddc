//! Values of flags that need more than a parser of numbers: CPU lists, byte ranges, sizes.

use std::str::FromStr;
use std::time::Duration;

/// A list of CPUs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuList(pub Vec<usize>);

/// The highest CPU number that Linux can be built for.
const CPUS_MAX: usize = 8192;

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.trim()
                .parse::<usize>()
                .ok()
                .filter(|cpu| *cpu < CPUS_MAX)
                .ok_or_else(|| format!("'{text}' is no CPU; a list is like 0,2-5"))
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(format!("'{part}' runs backwards"));
                    }
                    cpus.extend(first..=last);
                }
                None => cpus.push(number(part)?),
            }
        }
        Ok(Self(cpus))
    }
}

/// A bound on a size: `+1MiB` for more, `-1MiB` for less, `1MiB` for just that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// More bytes than this.
    Above(u64),
    /// Fewer bytes than this.
    Below(u64),
    /// So many bytes.
    Exactly(u64),
}

impl Bound {
    /// Whether so many bytes are within it.
    pub fn holds(self, bytes: u64) -> bool {
        match self {
            Self::Above(bound) => bytes > bound,
            Self::Below(bound) => bytes < bound,
            Self::Exactly(bound) => bytes == bound,
        }
    }
}

/// Reads a bound on a size.
///
/// # Errors
/// What is wrong with it.
pub fn bound(text: &str) -> Result<Bound, String> {
    match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(more), _) => Ok(Bound::Above(size(more)?)),
        (_, Some(less)) => Ok(Bound::Below(size(less)?)),
        _ => Ok(Bound::Exactly(size(text)?)),
    }
}

/// Reads a pattern for names, such as `*.log` or `{a,b}-[0-9]`.
///
/// # Errors
/// What is wrong with it.
pub fn glob(text: &str) -> Result<globset::GlobMatcher, String> {
    let glob = globset::Glob::new(text).map_err(|error| error.to_string())?;
    Ok(glob.compile_matcher())
}

/// A span of time such as `90s`, `30m`, `2h`, `1d`, or `1h 30m`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("'{text}' is no time ({error}); write 90s, 30m, 2h or 1d"))
}

/// Part of a file, as `curl -r` spells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteRange {
    /// From the first to the last byte, or to the end of the file.
    From(u64, Option<u64>),
    /// So many bytes at the end.
    Last(u64),
}

impl ByteRange {
    /// The bytes meant in a file of `size_bytes`, end excluded.
    pub fn within(self, size_bytes: u64) -> std::ops::Range<u64> {
        match self {
            Self::From(first, last) => {
                let end = last
                    .map_or(size_bytes, |last| last.saturating_add(1))
                    .min(size_bytes);
                first.min(end)..end
            }
            Self::Last(count) => size_bytes.saturating_sub(count)..size_bytes,
        }
    }
}

impl FromStr for ByteRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no range; write 0-99, 100- or -100");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let number = |text: &str| size(text).map_err(|_| wrong());
        match (first, last) {
            ("", "") => Err(wrong()),
            ("", count) => Ok(Self::Last(number(count)?)),
            (first, "") => Ok(Self::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(format!("'{text}' runs backwards"));
                }
                Ok(Self::From(first, Some(last)))
            }
        }
    }
}

/// Reads `4096`, `10G` (10⁹ bytes each), `512MiB` (2²⁰ each).
pub fn size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| format!("'{text}' is no size; write 4096, 10G, 512MiB or 2TiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_times_and_patterns() {
        assert_eq!(bound("+1MiB"), Ok(Bound::Above(1 << 20)));
        assert_eq!(bound("-1K"), Ok(Bound::Below(1000)));
        assert!(Bound::Exactly(5).holds(5) && !Bound::Above(5).holds(5) && Bound::Below(5).holds(4));
        assert!(bound("+").is_err() && bound("many").is_err());
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("soon").unwrap_err().contains("30m"));
        assert!(glob("*.{log,txt}").unwrap().is_match("a.txt") && glob("[").is_err());
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4096", 4096),
            ("10G", 10_000_000_000),
            ("512MiB", 512 << 20),
            ("2TiB", 2 << 40),
            ("1.5 KiB", 1536),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1", "10 apples"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges() {
        let within = |text: &str, size: u64| text.parse::<ByteRange>().unwrap().within(size);
        assert_eq!(within("0-99", 1000), 0..100);
        assert_eq!(within("0-99", 50), 0..50);
        assert_eq!(within("100-", 1000), 100..1000);
        assert_eq!(within("-100", 1000), 900..1000);
        assert_eq!(within("-100", 50), 0..50);
        assert_eq!(within("70-80", 50), 50..50);
        assert_eq!(within("5-5", 50), 5..6);
        for bad in ["", "-", "5", "9-1", "a-b", "1-2-3"] {
            assert!(bad.parse::<ByteRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cpus() {
        assert_eq!("0,2-4".parse(), Ok(CpuList(vec![0, 2, 3, 4])));
        for bad in ["", "a", "3-1", "0-", "99999999"] {
            assert!(bad.parse::<CpuList>().is_err(), "{bad}");
        }
    }
}
