//! Which gateway, and with which key: found once, with the place each came
//! from, so that an error can say whose fault it is.
//!
//! Invariants:
//! - URL: `--url`, `SKEIN_URL`, `SKEIN_PORT` on this machine, port 8080 of it.
//! - Key: `--api-key-file`, `SKEIN_API_KEY`, then `.skein/dev.key` of the
//!   current folder or the nearest one above, which `make up` writes.
//! - The developer key is only ever sent to this machine.

use crate::{args::Sources, errors::Error};
use http::Uri;
use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

const DEVELOPER_KEY: &str = ".skein/dev.key";

pub(crate) struct Access {
    pub(crate) url: String,
    pub(crate) url_origin: &'static str,
    pub(crate) key: Option<String>,
    pub(crate) key_origin: String,
}

impl Access {
    pub(crate) fn find(sources: &Sources, from: &Path) -> Result<Self, Error> {
        let (url, url_origin) = url(sources)?;
        let (key, key_origin) = key(sources, &url, from)?;
        Ok(Self {
            url: url.to_string().trim_end_matches('/').to_owned(),
            url_origin,
            key,
            key_origin,
        })
    }
}

fn url(sources: &Sources) -> Result<(Uri, &'static str), Error> {
    let (text, origin) = match (&sources.url, sources.port) {
        (Some((url, origin)), _) => (url.clone(), *origin),
        (None, Some(port)) => (format!("http://127.0.0.1:{port}"), "SKEIN_PORT"),
        (None, None) => ("http://127.0.0.1:8080".to_owned(), "default"),
    };
    let wrong = |why: &str| {
        Error::usage(format!(
            "{origin}={text:?}: {why}; expected http://HOST[:PORT] or https://HOST[:PORT]"
        ))
    };
    let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| wrong("not a URL"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        Some(_) | None => return Err(wrong("neither http nor https")),
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong("no host"));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(wrong("a gateway has no path"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong("a key belongs into SKEIN_API_KEY"));
    }
    Ok((uri, origin))
}

fn key(sources: &Sources, url: &Uri, from: &Path) -> Result<(Option<String>, String), Error> {
    if let Some(path) = &sources.api_key_file {
        return Ok((Some(read(path)?), path.display().to_string()));
    }
    if let Some(key) = &sources.api_key {
        let origin = "SKEIN_API_KEY".to_owned();
        return Ok((Some(usable(key, &origin)?), origin));
    }
    match developer_key(from) {
        Some(path) if is_this_machine(url) => Ok((Some(read(&path)?), path.display().to_string())),
        Some(path) => {
            let why = format!("nowhere ({} is for this machine only)", path.display());
            Ok((None, why))
        }
        None => Ok((None, "nowhere".to_owned())),
    }
}

fn developer_key(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|folder| folder.join(DEVELOPER_KEY)).find(|path| path.is_file())
}

fn read(path: &Path) -> Result<String, Error> {
    let origin = path.display().to_string();
    let text = fs::read_to_string(path)
        .map_err(|error| Error::usage(format!("cannot read the API key from {origin}: {error}")))?;
    usable(&text, &origin)
}

/// What can go into a header; says where it is wrong, never what it is.
fn usable(key: &str, origin: &str) -> Result<String, Error> {
    let key = key.trim();
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::usage(format!(
            "{origin} does not hold an API key: expected one line of printable ASCII"
        )));
    }
    Ok(key.to_owned())
}

fn is_this_machine(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(sources: &Sources, from: &Path) -> Access {
        Access::find(sources, from).unwrap()
    }

    #[test]
    fn the_url_has_four_places() {
        let nowhere = Path::new("/nonexistent");
        let mut sources = Sources::default();
        assert_eq!(find(&sources, nowhere).url, "http://127.0.0.1:8080");
        sources.port = Some(9000);
        assert_eq!(find(&sources, nowhere).url, "http://127.0.0.1:9000");
        sources.url = Some(("https://acme.fly.dev/".to_owned(), "SKEIN_URL"));
        let access = find(&sources, nowhere);
        assert_eq!((access.url.as_str(), access.url_origin), ("https://acme.fly.dev", "SKEIN_URL"));
    }

    #[test]
    fn a_wrong_url_is_a_usage_error_with_its_origin() {
        for wrong in ["acme", "ftp://acme", "http://acme/v1", "http://k@acme", "http://", ""] {
            let sources = Sources { url: Some((wrong.to_owned(), "--url")), ..Sources::default() };
            let error = url(&sources).unwrap_err();
            assert_eq!(error.exit_code(), crate::errors::USAGE);
            assert!(error.to_string().starts_with("--url="), "{error}");
        }
    }

    #[test]
    fn the_developer_key_is_found_above_and_stays_here() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        fs::create_dir(root.path().join(".skein")).unwrap();
        fs::write(root.path().join(DEVELOPER_KEY), "sk-dev\n").unwrap();
        let here = find(&Sources::default(), &below);
        assert_eq!(here.key.as_deref(), Some("sk-dev"));
        assert!(here.key_origin.ends_with(DEVELOPER_KEY), "{}", here.key_origin);
        let away = Sources {
            url: Some(("https://acme.fly.dev".to_owned(), "--url")),
            ..Sources::default()
        };
        assert_eq!(find(&away, &below).key, None);
        let own = Sources { api_key: Some(" sk-own ".to_owned()), ..Sources::default() };
        assert_eq!(find(&own, &below).key.as_deref(), Some("sk-own"));
    }

    #[test]
    fn a_key_that_is_none_is_not_shown() {
        let error = usable("two words", "SKEIN_API_KEY").unwrap_err().to_string();
        assert!(error.contains("SKEIN_API_KEY") && !error.contains("words"), "{error}");
    }
}
