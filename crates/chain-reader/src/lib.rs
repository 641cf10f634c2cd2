//! Reads from an Ethereum contract which model is the current one.
