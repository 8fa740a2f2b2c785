//! `/v1/files`: uploads that a prediction's input may point to.
//!
//! Invariants:
//! - What is downloaded is what was uploaded, byte for byte.

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::{Mutex, PoisonError};

#[derive(Default)]
pub(super) struct Files {
    all: Mutex<Vec<File>>,
}

#[derive(Clone)]
struct File {
    id: String,
    name: String,
    kind: String,
    bytes: Bytes,
}

impl Files {
    /// From a form's part `content`; `None`: there is none.
    pub(super) fn create(&self, content_type: &str, body: &Bytes, origin: &str) -> Option<Value> {
        let boundary = content_type.split("boundary=").nth(1)?.trim_matches('"');
        let mut file = part(body, &format!("--{boundary}"), "content")?;
        self.with(|all| {
            file.id = format!("file{:022}", all.len() + 1);
            all.push(file.clone());
        });
        Some(json(&file, origin))
    }

    pub(super) fn list(&self, origin: &str) -> Vec<Value> {
        self.with(|all| all.iter().map(|file| json(file, origin)).collect())
    }

    pub(super) fn get(&self, id: &str, origin: &str) -> Option<Value> {
        self.with(|all| all.iter().find(|file| file.id == id).map(|file| json(file, origin)))
    }

    pub(super) fn content(&self, id: &str) -> Option<(String, Bytes)> {
        self.with(|all| {
            let file = all.iter().find(|file| file.id == id)?;
            Some((file.kind.clone(), file.bytes.clone()))
        })
    }

    pub(super) fn delete(&self, id: &str) -> bool {
        self.with(|all| {
            let before = all.len();
            all.retain(|file| file.id != id);
            all.len() < before
        })
    }

    fn with<R>(&self, use_it: impl FnOnce(&mut Vec<File>) -> R) -> R {
        use_it(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn json(file: &File, origin: &str) -> Value {
    let digest = hex::encode(Sha256::digest(&file.bytes));
    let url = format!("{origin}/v1/files/{}", file.id);
    json!({
        "id": file.id, "name": file.name, "content_type": file.kind, "size": file.bytes.len(),
        "etag": digest, "checksums": {"sha256": digest}, "metadata": {},
        "created_at": "2026-01-01T00:00:00.000000Z", "expires_at": null, "urls": {"get": url},
    })
}

/// The part `name` of a multipart form.
fn part(body: &Bytes, boundary: &str, name: &str) -> Option<File> {
    let find = |from: usize, needle: &[u8]| {
        let found = body[from..].windows(needle.len()).position(|window| window == needle);
        found.map(|at| from + at)
    };
    let mut at = find(0, boundary.as_bytes())?;
    loop {
        let head = at + boundary.len();
        let blank = find(head, b"\r\n\r\n")?;
        let end = find(blank, format!("\r\n{boundary}").as_bytes())?;
        let headers = String::from_utf8_lossy(&body[head..blank]).into_owned();
        let quoted = |field: &str| {
            let rest = headers.split(&format!("{field}=\"")).nth(1)?;
            rest.split('"').next().map(str::to_owned)
        };
        if headers.contains(&format!(" name=\"{name}\"")) {
            let kind = headers.lines().find_map(|line| line.strip_prefix("Content-Type: "));
            return Some(File {
                id: String::new(),
                name: quoted("filename").unwrap_or_default(),
                kind: kind.unwrap_or("application/octet-stream").to_owned(),
                bytes: body.slice(blank + 4..end),
            });
        }
        at = end + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_found_among_the_parts() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"metadata\"\r\n\r\n{}\r\n--x\r\n\
            Content-Disposition: form-data; name=\"content\"; filename=\"a.bin\"\r\n\
            Content-Type: image/png\r\n\r\nab\r\ncd\r\n--x--\r\n";
        let files = Files::default();
        let made =
            files.create("multipart/form-data; boundary=x", &Bytes::from(body), "o").unwrap();
        assert_eq!((made["name"].as_str(), made["size"].as_u64()), (Some("a.bin"), Some(6)));
        let (kind, bytes) = files.content(made["id"].as_str().unwrap()).unwrap();
        assert_eq!((kind.as_str(), &bytes[..]), ("image/png", &b"ab\r\ncd"[..]));
    }
}
