//! Plans, verifies, rebuilds, stores and maps a model.
