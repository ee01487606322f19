//! The `processor` family: how the work on a blob goes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalar::{Progress, SafeInteger};

/// How the work on a blob goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum ProcessorEvent {
    /// The work moved on.
    #[serde(rename = "processor.status")]
    Status(ProcessorStatusChanged),
    /// The work is done.
    #[serde(rename = "processor.completed")]
    Completed(ProcessorCompleted),
    /// The work broke off.
    #[serde(rename = "processor.failed")]
    Failed(ProcessorFailed),
}

/// Where the work stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[serde(rename_all = "snake_case")]
pub enum ProcessorStatus {
    /// It is under way.
    Processing,
    /// It is done.
    Completed,
    /// It broke off.
    Failed,
    /// A value of a later version; kept as it came.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(String),
}

/// The work moved on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ProcessorStatusChanged {
    /// The blob that is worked on.
    pub blob_id: String,
    /// What works on it.
    pub processor_id: String,
    /// Where the work stands.
    pub status: ProcessorStatus,
    /// How far it has come.
    pub progress: Progress,
    /// A line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// The work is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ProcessorCompleted {
    /// The blob that was worked on.
    pub blob_id: String,
    /// What worked on it.
    pub processor_id: String,
    /// The blob that came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived_id: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<SafeInteger>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}

/// The work broke off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(ts_rs::TS), ts(optional_fields))]
pub struct ProcessorFailed {
    /// The blob that was worked on.
    pub blob_id: String,
    /// What worked on it.
    pub processor_id: String,
    /// The processor's own code for what went wrong.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
    /// After how many seconds trying again may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<f64>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
}
