//! A made-up safetensors model.
//!
//! Format: <https://github.com/huggingface/safetensors>: a little-endian `u64` with the header's length, the header, JSON
//! that may end in spaces, and the tensors' bytes.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use bytesize::ByteSize;
use serde_json::{Map, Value, json};
use store::Model;

/// The smallest model there is.
pub(super) const MIN_SIZE: ByteSize = ByteSize::mib(1);
/// The file of the weights.
const WEIGHTS: &str = "model.safetensors";
const HEADER_BYTES: usize = 2048;
const LAYERS: u64 = 8;
/// The tensor that is read again in the end: 256 numbers, each half its index.
pub(super) const PROBE: &str = "probe";
const PROBE_LEN: u16 = 256;

/// Makes the folder of a model of about `size_bytes` (an even number): a configuration, and weights.
pub(super) fn write(dir: &Path, size_bytes: u64) -> io::Result<()> {
    std::fs::create_dir(dir)?;
    let config = json!({"model_type": "made-up", "num_hidden_layers": LAYERS});
    File::create(dir.join("config.json"))?.write_all(config.to_string().as_bytes())?;
    write_weights(&dir.join(WEIGHTS), size_bytes)
}

/// The probe, and layers of noise.
fn write_weights(path: &Path, size_bytes: u64) -> io::Result<()> {
    let probe: Vec<u8> = probe().flat_map(f32::to_le_bytes).collect();
    let data_bytes = size_bytes.saturating_sub(8 + HEADER_BYTES as u64);
    let header = header(probe.len() as u64, data_bytes & !1).to_string();
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    file.write_all(&(HEADER_BYTES as u64).to_le_bytes())?;
    write!(file, "{header:<HEADER_BYTES$}")?;
    file.write_all(&probe)?;
    let mut noise = fastrand::Rng::with_seed(size_bytes);
    let mut chunk = vec![0; 1 << 20];
    let mut left_bytes = (data_bytes & !1).saturating_sub(probe.len() as u64);
    while left_bytes > 0 {
        let len = usize::try_from(left_bytes).unwrap_or(usize::MAX).min(chunk.len());
        noise.fill(&mut chunk[..len]);
        file.write_all(&chunk[..len])?;
        left_bytes -= len as u64;
    }
    file.flush()
}

/// Where each tensor is. The layers are in 16-bit numbers, and share evenly what the probe leaves of the data.
fn header(probe_bytes: u64, data_bytes: u64) -> Value {
    let mut tensors = Map::new();
    tensors.insert(
        PROBE.to_owned(),
        json!({"dtype": "F32", "shape": [PROBE_LEN], "data_offsets": [0, probe_bytes]}),
    );
    let each_bytes = ((data_bytes - probe_bytes) / LAYERS) & !1;
    for layer in 0..LAYERS {
        let start = probe_bytes + layer * each_bytes;
        let end = if layer + 1 == LAYERS { data_bytes } else { start + each_bytes };
        let entry = json!({"dtype": "BF16", "shape": [(end - start) / 2], "data_offsets": [start, end]});
        tensors.insert(format!("layers.{layer}.weight"), entry);
    }
    Value::Object(tensors)
}

fn probe() -> impl Iterator<Item = f32> {
    (0..PROBE_LEN).map(|index| f32::from(index) / 2.0)
}

/// Reads the probe out of the mapped weights: how many tensors there are, or `None` when they are not those written.
pub(super) fn read(model: &Model) -> Option<usize> {
    let tensors = model.tensors().ok()?;
    let found = tensors.get(PROBE)?;
    let expected: Vec<u8> = probe().flat_map(f32::to_le_bytes).collect();
    (found.data() == expected).then(|| tensors.len())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use loader::Selection;
    use loader::encode::{Folder, Input, Options, publish};
    use store::Cache;

    use super::*;

    #[test]
    fn a_made_up_model_is_a_safetensors_file_of_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join("model");
        for size_bytes in [MIN_SIZE.as_u64(), MIN_SIZE.as_u64() + 3] {
            let _ = std::fs::remove_dir_all(&path);
            write(&path, size_bytes).unwrap();
            assert_eq!(path.join(WEIGHTS).metadata().unwrap().len(), size_bytes & !1);
        }
        let cache = Cache::open(&dir.path().join("cache")).unwrap();
        let options = Options::default().with_model_kind("simplenet".to_owned());
        let folder = Folder::list(&path, &Selection::default()).unwrap();
        let published = publish(&cache, &Input::Folder(folder), &options, &|_, _| ()).unwrap();
        assert_eq!(read(&published.model), Some(9));
    }
}
