//! PPYDFS's spellings, rewritten into Blockyard's before anything is parsed.

use std::ffi::OsString;

/// Turns `client upload …` into `upload …`, and so on; everything else stays as it is.
///
/// The positional forms of `nameserver` and `dataserver` need no rewriting: their flags take them.
pub fn rewrite(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let ours = ["upload", "download", "list", "delete", "help", "--help", "-h"];
    let is_client = args.get(1).is_some_and(|word| word == "client");
    if is_client
        && args
            .get(2)
            .is_none_or(|word| ours.iter().any(|known| word == known))
    {
        args.remove(1);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let words = rewrite(line.split(' ').map(OsString::from));
        words.join(&OsString::from(" ")).into_string().unwrap()
    }

    #[test]
    fn client_goes_and_the_rest_stays() {
        assert_eq!(rewritten("blockyard client upload a b"), "blockyard upload a b");
        assert_eq!(rewritten("blockyard client download a"), "blockyard download a");
        assert_eq!(rewritten("blockyard client list"), "blockyard list");
        assert_eq!(rewritten("blockyard client delete a"), "blockyard delete a");
        assert_eq!(rewritten("blockyard client"), "blockyard");
        assert_eq!(rewritten("blockyard client fly"), "blockyard client fly");
        assert_eq!(
            rewritten("blockyard upload client list"),
            "blockyard upload client list"
        );
    }
}
