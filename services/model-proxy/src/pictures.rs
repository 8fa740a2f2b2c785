//! Pictures on their way to the caller: as a URL or as data, as was asked.
//!
//! Invariants:
//! - Only what lies at a host of the provider's is fetched, without a key and
//!   without following anybody elsewhere, and no more than [`LARGEST`] of it.
//! - What kind a picture is of is read from its bytes, whatever anybody says.
//! - What could not be delivered as asked is refused before it is paid for,
//!   wherever that is known.

mod store;

pub use store::Store;

use crate::{
    error::{Error, Failure},
    provider::Provider,
    transport::{Sending, Transport},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use skein_proto::model::v1::{Image, ImageDelivery, image::Source};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

/// Largest picture that is fetched.
pub const LARGEST: usize = 32 << 20;
/// How long a picture may take to be fetched, all tries together.
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(250);

pub struct Pictures {
    store: Option<Store>,
}

impl Pictures {
    pub const fn new(store: Option<Store>) -> Self {
        Self { store }
    }

    /// Whether what comes as data can be delivered; asked before the provider is.
    pub fn check(&self, delivery: ImageDelivery, comes_as_data: bool) -> Result<(), Error> {
        let needs_store = delivery == ImageDelivery::Url && comes_as_data;
        if needs_store && self.store.is_none() { Err(Error::NoStore) } else { Ok(()) }
    }

    pub async fn deliver(
        &self,
        image: Image,
        delivery: ImageDelivery,
        provider: &dyn Provider,
        transport: &Arc<Transport>,
    ) -> Result<Image, Error> {
        match (image.source, delivery) {
            (Some(Source::Url(url)), ImageDelivery::Data) => {
                let fetched = timeout(PATIENCE, fetch(&url, provider, transport)).await;
                let late =
                    || failed(provider, Failure::IdleTimeout, "its picture did not come in time");
                let (data, media_type) = fetched.map_err(|_| late())??;
                Ok(Image {
                    source: Some(Source::Data(data)),
                    media_type: media_type.to_owned(),
                    ..image
                })
            }
            (Some(Source::Data(data)), ImageDelivery::Url) => {
                let store = self.store.as_ref().ok_or(Error::NoStore)?;
                let url = store.put(data, &image.media_type).await?;
                Ok(Image { source: Some(Source::Url(url)), ..image })
            }
            (source, _) => Ok(Image { source, ..image }),
        }
    }
}

async fn fetch(
    url: &str,
    provider: &dyn Provider,
    transport: &Transport,
) -> Result<(Bytes, &'static str), Error> {
    let uri: http::Uri = url.parse().unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    if !provider.owns(host) {
        let message =
            format!("its picture lies at {host:?}, which is none of its hosts: ask for a URL");
        return Err(failed(provider, Failure::Malformed, &message));
    }
    let mut tries = 1;
    let data = loop {
        match once(&uri, provider, transport).await {
            Err(error) if tries < TRIES && is_passing(&error) => sleep(PAUSE * tries).await,
            outcome => break outcome?,
        }
        tries += 1;
    };
    let kind = media_type(&data);
    let kind = kind.ok_or_else(|| failed(provider, Failure::Malformed, "its picture is none"))?;
    Ok((data, kind))
}

async fn once(uri: &http::Uri, provider: &dyn Provider, to: &Transport) -> Result<Bytes, Error> {
    let broke = || failed(provider, Failure::Cut, "its picture broke off");
    let request = http::Request::get(uri).body(Bytes::new()).map_err(|_| broke())?;
    let sending = Sending { connect: CONNECT, repeatable: true };
    let mut reply = to.send(request, sending).await.map_err(|_| broke())?;
    let status = reply.status();
    if status != 200 {
        let message = format!("its picture was answered with status {status}");
        return Err(failed(provider, Failure::of_status(status, None), &message));
    }
    let mut data = Vec::new();
    while let Some(bytes) = reply.chunk().await.map_err(|_| broke())? {
        if data.len() + bytes.len() > LARGEST {
            let message =
                format!("its picture is larger than {} MiB: ask for a URL", LARGEST >> 20);
            return Err(failed(provider, Failure::Malformed, &message));
        }
        data.extend_from_slice(&bytes);
    }
    Ok(data.into())
}

fn is_passing(error: &Error) -> bool {
    matches!(error.failure(), Some(Failure::Cut | Failure::Unavailable | Failure::Overloaded))
}

fn failed(provider: &dyn Provider, failure: Failure, message: &str) -> Error {
    Error::provider(provider.name(), failure, message)
}

/// What a picture is, by its first bytes.
pub fn media_type(data: &[u8]) -> Option<&'static str> {
    match data {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// The picture in a `data:` URL.
pub fn decode(url: &str) -> Option<Image> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    head.strip_suffix(";base64")?;
    from_base64(data)
}

/// `None` if it is not base64, or no picture.
pub fn from_base64(data: &str) -> Option<Image> {
    let data = STANDARD.decode(data).ok()?;
    let media_type = media_type(&data)?.to_owned();
    Some(Image { source: Some(Source::Data(data.into())), media_type, ..Image::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_say_what_it_is() {
        for (bytes, kind) in [
            (&b"\x89PNG\r\n\x1a\nrest"[..], Some("image/png")),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (b"RIFF\x00\x00\x00\x00WEBPVP8 ", Some("image/webp")),
            (b"GIF89a", Some("image/gif")),
            (b"<svg>", None),
            (b"", None),
        ] {
            assert_eq!(media_type(bytes), kind);
        }
        // Whatever the URL says.
        assert_eq!(decode("data:image/png;base64,/9j/4A==").unwrap().media_type, "image/jpeg");
        assert_eq!(decode("data:image/png;base64,PHN2Zz4="), None);
        assert_eq!(decode("data:image/png,plain"), None);
    }

    #[test]
    fn a_url_without_a_store_is_refused_beforehand() {
        let pictures = Pictures::new(None);
        assert!(pictures.check(ImageDelivery::Url, true).is_err());
        assert!(pictures.check(ImageDelivery::Url, false).is_ok());
        assert!(pictures.check(ImageDelivery::Data, true).is_ok());
    }
}
