//! SHA-256 over one to four independent chains at once, from and to chaining values.
