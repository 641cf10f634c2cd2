//! The loader for embedding: reads the chain, fetches, maps, serves.
