//! What errors have in common.

/// What may be done about an error. Decisions are made on this, never on message text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Availability {
    /// Not available now: the same request may succeed later.
    NotNow,
    /// It will not succeed until somebody changes what is asked or of whom.
    Never,
    /// The chain was read, and what stands there is wrong: an alarm.
    Alarm,
}
