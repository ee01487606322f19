//! The `blob` family: pieces of content and where they came from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::Timestamp;

/// What happens to blobs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum BlobEvent {
    /// A blob was stored.
    #[serde(rename = "blob.created")]
    Created(BlobCreated),
    /// A blob's content or its place changed.
    #[serde(rename = "blob.updated")]
    Updated(BlobUpdated),
    /// A blob is gone.
    #[serde(rename = "blob.deleted")]
    Deleted(BlobDeleted),
    /// A processor made a blob out of another.
    #[serde(rename = "blob.derived")]
    Derived(BlobDerived),
}

/// A blob was stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct BlobCreated {
    /// The blob.
    pub blob_id: String,
    /// Whose it is.
    pub user_id: String,
    /// What made it.
    pub processor_id: String,
    /// What its content looks like.
    pub schema_id: String,
    /// The first 200 characters of the content.
    pub preview: String,
    /// The book that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub book_id: Option<String>,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// A blob's content or its place changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct BlobUpdated {
    /// The blob.
    pub blob_id: String,
    /// Whose it is.
    pub user_id: String,
    /// What its content looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema_id: Option<String>,
    /// The first 200 characters of the new content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// The book that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub book_id: Option<String>,
    /// When it changed.
    pub updated_at: Timestamp,
}

/// A blob is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct BlobDeleted {
    /// The blob.
    pub blob_id: String,
    /// Whose it was.
    pub user_id: String,
    /// When it went.
    pub deleted_at: Timestamp,
}

/// A processor made a blob out of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct BlobDerived {
    /// The blob that was read.
    pub parent_id: String,
    /// The blob that was made.
    pub derived_id: String,
    /// What made it.
    pub processor_id: String,
    /// Size of the derived blob divided by the size of its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expansion_ratio: Option<f64>,
    /// The first 200 characters of the derived content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}
