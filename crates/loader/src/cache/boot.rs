//! Which boot of the machine this is: what was written but not synced is believed within one boot only.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// One boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BootId(pub(super) [u8; 16]);

impl BootId {
    /// The current boot. Where the system does not name its boots, every call gives another id, so that nothing is
    /// trusted that an earlier process wrote.
    pub(super) fn current() -> Self {
        let named = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let digits = named.map(|text| text.trim().replace('-', ""));
        let parsed = digits.and_then(|digits| u128::from_str_radix(&digits, 16).ok());
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
        Self(parsed.unwrap_or_else(now).to_be_bytes())
    }

    #[cfg(test)]
    pub(super) const fn other() -> Self {
        Self([0xAB; 16])
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_boot_has_one_name() {
        assert_eq!(BootId::current(), BootId::current());
        assert_ne!(BootId::current().to_string(), BootId::other().to_string());
    }
}
