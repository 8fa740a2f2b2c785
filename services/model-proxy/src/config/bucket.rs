//! Where pictures are stored, in the variables that `fly storage create` sets.
//!
//! Invariant: a bucket is configured whole or not at all.

use mesh::config::{Reader, Secret, Time, key};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct BucketSettings {
    pub bucket: String,
    pub endpoint: String,
    pub access_key: Secret,
    pub secret_key: Secret,
    pub region: String,
    /// How long a URL of ours can be read.
    pub url_ttl: Duration,
}

/// Longest that a signature may hold.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) fn read(reader: &mut Reader<'_>) -> Option<BucketSettings> {
    let names = [
        key("storage.bucket").env("BUCKET_NAME"),
        key("storage.endpoint").env("AWS_ENDPOINT_URL_S3"),
        key("storage.access_key").env("AWS_ACCESS_KEY_ID"),
        key("storage.secret_key").env("AWS_SECRET_ACCESS_KEY"),
    ];
    let bucket: Option<String> = reader.optional(names[0]);
    let endpoint: Option<String> = reader.optional(names[1]);
    let (access_key, secret_key) = (reader.secret(names[2]), reader.secret(names[3]));
    let region = reader.or(key("storage.region").env("AWS_REGION"), "auto".to_owned());
    let ttl_key = key("images.url_ttl");
    let url_ttl = reader.or(ttl_key, Time::from_secs(3600)).0;
    if url_ttl.is_zero() || url_ttl > WEEK {
        reader.complain(ttl_key, "must be above 0 and at most 7d");
    }
    // The other variables alone may be there for another purpose.
    let bucket = bucket?;
    let given = [true, endpoint.is_some(), access_key.is_some(), secret_key.is_some()];
    for (name, _) in names.into_iter().zip(given).filter(|(_, given)| !given) {
        reader.complain(name, "is needed beside BUCKET_NAME");
    }
    if endpoint
        .as_ref()
        .is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://"))
    {
        reader.complain(names[1], "must begin with http:// or https://");
    }
    let (endpoint, access_key, secret_key) = (endpoint?, access_key?, secret_key?);
    Some(BucketSettings { bucket, endpoint, access_key, secret_key, region, url_ttl })
}
