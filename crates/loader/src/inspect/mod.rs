//! What the files of a model say about how a runtime will fare with them. Nothing is executed or changed.
//!
//! Only the beginnings of files are read, of those whose names make them worth it. They come from anybody: whatever is
//! read has a limit, and texts from inside of files are shown short and escaped.

mod executable;
mod index;
mod listing;
mod safetensors;
mod sets;

pub use executable::{Executable, ExecutableKind, executable};
pub use listing::ModelFolder;

use listing::{Troubles, by_dir, some_of};

/// What a GGUF file begins with.
const GGUF_MAGIC: [u8; 4] = *b"GGUF";

/// What a runtime will trip over: weights that are missing, that are there twice, or that cannot be read. One sentence each
/// without a full stop, 20 at most; if there are more, the last one of 21 says how many.
///
/// Each folder is looked at by itself. Reads the beginnings of `*.safetensors` (their headers, 100 MB at most each), their
/// indices, and `*.gguf`; blocks for as long as that takes.
pub fn troubles(folder: &dyn ModelFolder) -> Vec<String> {
    let paths = folder.paths();
    let (dirs, all) = (by_dir(&paths), paths.iter().map(|(path, _)| *path).collect());
    let mut troubles = Troubles::default();
    for dir in &dirs {
        index::check(folder, &all, dir, &mut troubles);
    }
    let mut without_format = Vec::new();
    for dir in &dirs {
        for file in &dir.files {
            let read = |limit_bytes| folder.read_start(file.place, limit_bytes);
            if file.name.ends_with(safetensors::EXTENSION) {
                let checked = safetensors::check(file.size_bytes, &read);
                for wrong in checked.wrong {
                    troubles.add(format!("{} {wrong}", file.path));
                }
                without_format.extend((!checked.has_format).then_some(file.path));
            }
            if file.name.ends_with(sets::GGUF) {
                match read(GGUF_MAGIC.len() as u64) {
                    None => troubles.add(format!("{} cannot be read", file.path)),
                    Some(magic) if magic != GGUF_MAGIC => {
                        troubles
                            .add(format!("{} is not a GGUF file: it does not begin with GGUF", file.path));
                    }
                    Some(_) => {}
                }
            }
        }
        sets::check_gguf(dir, &mut troubles);
    }
    if !without_format.is_empty() {
        let (all, has) = (some_of(&without_format), if without_format.len() == 1 { "has" } else { "have" });
        troubles.add(format!("{all} {has} no `format` in the metadata: transformers refuses such files"));
    }
    troubles.into_list()
}

#[cfg(test)]
pub(crate) mod tests;
