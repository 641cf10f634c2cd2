//! `loader id`.

use anyhow::Result;
use loader::cache::Cache;
use p2p_blob::Identity;

use crate::answer::{Answer, Id, Text};
use crate::output::Output;

pub(crate) fn run(cache: &Cache, output: &Output) -> Result<()> {
    let peer_id = Identity::peer_id_of(&cache.identity_path())?;
    output.answer(&Answer::Id(Id { peer_id: Text::of(peer_id) }))
}
