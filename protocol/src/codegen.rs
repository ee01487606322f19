//! From the catalogue to text: schemas, both SDKs' generated files, the pages of codes.
