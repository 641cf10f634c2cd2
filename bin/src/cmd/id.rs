//! `loader id`.

use anyhow::Result;
use p2p_blob::{Identity, IdentityError};
use store::Cache;

use crate::answer::{Answer, Id, Text};
use crate::config::Settings;
use crate::output::Output;

pub(crate) fn run(settings: &Settings, output: &Output) -> Result<()> {
    let Some(cache) = Cache::open_existing(&settings.cache_dir)? else {
        return Err(IdentityError::Missing { path: settings.cache_dir.join("identity") }.into());
    };
    let peer_id = Identity::peer_id_of(&cache.identity_path())?;
    output.answer(&Answer::Id(Id { peer_id: Text::of(peer_id) }))
}
