//! All event types and commands of a deployment, with their schemas.
