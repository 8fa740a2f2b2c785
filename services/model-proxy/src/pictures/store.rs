//! Object storage for pictures, S3-compatible: Tigris on Fly.
//!
//! Invariants:
//! - A name cannot be guessed, and a URL is signed and lapses.
//! - No error repeats what the storage said: it may name the access key.
//!
//! `object_store` signs with our `ring` and takes the workspace's rustls, so
//! that no second TLS stack comes with it.

use crate::{config::BucketSettings, error::Error};
use bytes::Bytes;
use object_store::{
    Attribute, ClientOptions, ObjectStore as _, PutOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    signer::Signer as _,
};
use std::time::Duration;

const RETRIES: usize = 2;
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Store {
    bucket: AmazonS3,
    name: String,
    url_ttl: Duration,
}

impl Store {
    pub fn new(settings: &BucketSettings) -> Result<Self, Error> {
        // A second installation is refused, and then the first one is ours too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let plain = settings.endpoint.starts_with("http://");
        let retry =
            RetryConfig { max_retries: RETRIES, retry_timeout: PATIENCE, ..RetryConfig::default() };
        let bucket = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_endpoint(&settings.endpoint)
            .with_region(&settings.region)
            .with_access_key_id(settings.access_key.expose())
            .with_secret_access_key(settings.secret_key.expose())
            .with_client_options(ClientOptions::new().with_allow_http(plain).with_timeout(PATIENCE))
            .with_retry(retry)
            .build()
            .map_err(|_| {
                Error::Store("AWS_ENDPOINT_URL_S3 is no address of a storage".to_owned())
            })?;
        Ok(Self { bucket, name: settings.bucket.clone(), url_ttl: settings.url_ttl })
    }

    /// Stores a picture; the URL under which it can be read for a while.
    pub async fn put(&self, data: Bytes, media_type: &str) -> Result<String, Error> {
        let end = media_type.strip_prefix("image/").unwrap_or("bin");
        let path = Path::from(format!("images/{}.{end}", uuid::Uuid::new_v4().simple()));
        let mut options = PutOptions::default();
        options.attributes.insert(Attribute::ContentType, media_type.to_owned().into());
        let stored = self.bucket.put_opts(&path, data.into(), options).await;
        stored.map_err(|error| self.failed(&error))?;
        let url = self.bucket.signed_url(http::Method::GET, &path, self.url_ttl).await;
        Ok(url.map_err(|error| self.failed(&error))?.to_string())
    }

    fn failed(&self, error: &object_store::Error) -> Error {
        let why = match error {
            object_store::Error::NotFound { .. } => "there is no such bucket",
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                "our key is refused: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            }
            _ => "the storage does not take it",
        };
        Error::Store(format!("bucket {:?}: {why}", self.name))
    }
}
