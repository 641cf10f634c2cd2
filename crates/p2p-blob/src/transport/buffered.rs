//! A read buffer below a security protocol, which by itself reads a few KiB per system call.

use futures::io::{AsyncRead, AsyncWrite, BufReader};
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};

/// Per connection; the system gives the pages when they are first filled.
pub(super) const READ_BUFFER_BYTES: usize = 256 << 10;

/// The upgrade `U`, over a buffered connection.
#[derive(Debug, Clone)]
pub(crate) struct Buffered<U>(pub(super) U);

impl<U: UpgradeInfo> UpgradeInfo for Buffered<U> {
    type Info = U::Info;
    type InfoIter = U::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C: AsyncRead + AsyncWrite, U: InboundConnectionUpgrade<BufReader<C>>> InboundConnectionUpgrade<C>
    for Buffered<U>
{
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_inbound(self, connection: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_inbound(BufReader::with_capacity(READ_BUFFER_BYTES, connection), info)
    }
}

impl<C: AsyncRead + AsyncWrite, U: OutboundConnectionUpgrade<BufReader<C>>> OutboundConnectionUpgrade<C>
    for Buffered<U>
{
    type Output = U::Output;
    type Error = U::Error;
    type Future = U::Future;

    fn upgrade_outbound(self, connection: C, info: Self::Info) -> Self::Future {
        self.0.upgrade_outbound(BufReader::with_capacity(READ_BUFFER_BYTES, connection), info)
    }
}
