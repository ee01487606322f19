//! The `book` family: collections of blobs in chapters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::SafeInteger;

/// What happens to books.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum BookEvent {
    /// A book was begun.
    #[serde(rename = "book.created")]
    Created(BookCreated),
    /// A book changed.
    #[serde(rename = "book.updated")]
    Updated(BookUpdated),
    /// A book is gone.
    #[serde(rename = "book.deleted")]
    Deleted(BookDeleted),
}

/// A book was begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct BookCreated {
    /// The book.
    pub book_id: String,
    /// Its title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// A book changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct BookUpdated {
    /// The book.
    pub book_id: String,
    /// Its title now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The chapter that came with this change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chapter_added: Option<Chapter>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// A chapter of a book.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct Chapter {
    /// Its place in the book.
    pub chapter_num: SafeInteger,
    /// The blob that holds its text.
    pub blob_id: String,
    /// Its title.
    pub title: String,
}

/// A book is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct BookDeleted {
    /// The book.
    pub book_id: String,
    /// The title that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whose it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}
