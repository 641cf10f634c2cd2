//! One of two ways to secure a connection: the first that both ends know.

use futures::future::{Either, MapOk};
use futures::{TryFuture, TryFutureExt as _};
use libp2p::PeerId;
use libp2p::core::UpgradeInfo;
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, SelectUpgrade};

/// Both, the preferred one first.
#[derive(Debug, Clone)]
pub(crate) struct Security<A, B>(SelectUpgrade<A, B>);

impl<A, B> Security<A, B> {
    pub(crate) fn new(preferred: A, other: B) -> Self {
        Self(SelectUpgrade::new(preferred, other))
    }
}

/// The name of the peer apart from how the connection is secured.
type Split<F, A, B> = MapOk<F, fn(Either<(PeerId, A), (PeerId, B)>) -> (PeerId, Either<A, B>)>;

fn split<F, A, B>(upgrade: F) -> Split<F, A, B>
where
    F: TryFuture<Ok = Either<(PeerId, A), (PeerId, B)>>,
{
    upgrade.map_ok(Either::factor_first)
}

impl<A, B> UpgradeInfo for Security<A, B>
where
    SelectUpgrade<A, B>: UpgradeInfo,
{
    type Info = <SelectUpgrade<A, B> as UpgradeInfo>::Info;
    type InfoIter = <SelectUpgrade<A, B> as UpgradeInfo>::InfoIter;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.protocol_info()
    }
}

impl<C, A, B, TA, TB> InboundConnectionUpgrade<C> for Security<A, B>
where
    SelectUpgrade<A, B>: InboundConnectionUpgrade<C, Output = Either<(PeerId, TA), (PeerId, TB)>>,
{
    type Output = (PeerId, Either<TA, TB>);
    type Error = <SelectUpgrade<A, B> as InboundConnectionUpgrade<C>>::Error;
    type Future = Split<<SelectUpgrade<A, B> as InboundConnectionUpgrade<C>>::Future, TA, TB>;

    fn upgrade_inbound(self, connection: C, info: Self::Info) -> Self::Future {
        split(self.0.upgrade_inbound(connection, info))
    }
}

impl<C, A, B, TA, TB> OutboundConnectionUpgrade<C> for Security<A, B>
where
    SelectUpgrade<A, B>: OutboundConnectionUpgrade<C, Output = Either<(PeerId, TA), (PeerId, TB)>>,
{
    type Output = (PeerId, Either<TA, TB>);
    type Error = <SelectUpgrade<A, B> as OutboundConnectionUpgrade<C>>::Error;
    type Future = Split<<SelectUpgrade<A, B> as OutboundConnectionUpgrade<C>>::Future, TA, TB>;

    fn upgrade_outbound(self, connection: C, info: Self::Info) -> Self::Future {
        split(self.0.upgrade_outbound(connection, info))
    }
}
