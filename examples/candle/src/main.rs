//! Embeds sentences with a BERT model, from the folder that `loader fetch` prints.
//!
//! candle-embed DIR SENTENCE...          prints the embeddings as JSON, a list for each sentence
//! candle-embed --check REFERENCE DIR    embeds the sentences of a reference and compares

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Error, Result, bail};
use candle_core::{D, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config, DTYPE};
use serde::Deserialize;
use tokenizers::{Encoding, PaddingParams, PaddingStrategy, Tokenizer};

const USAGE: &str = "usage: candle-embed DIR SENTENCE...
       candle-embed --check REFERENCE.json DIR";
/// Each number may differ by so much: other libraries add up in another order.
const TOLERANCE: f32 = 1e-5;

/// What another library computed: `tests/python/minilm_reference.json`.
#[derive(Deserialize)]
struct Reference {
    sentences: Vec<String>,
    embeddings: Vec<Vec<f32>>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("candle-embed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["--check", reference, dir] => check(Path::new(reference), Path::new(dir)),
        [dir, sentences @ ..] if !sentences.is_empty() && !dir.starts_with('-') => {
            println!("{}", serde_json::to_string(&embed(Path::new(dir), sentences)?)?);
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

fn check(reference: &Path, dir: &Path) -> Result<()> {
    let reference: Reference = parse(reference)?;
    let sentences: Vec<&str> = reference.sentences.iter().map(String::as_str).collect();
    if sentences.is_empty() {
        bail!("the reference has no sentence");
    }
    let embeddings = embed(dir, &sentences)?;
    let (got, expected) = (embeddings.concat(), reference.embeddings.concat());
    if embeddings.len() != reference.embeddings.len() || got.len() != expected.len() {
        bail!("expected {} numbers, got {}", expected.len(), got.len());
    }
    // A number that is none must not pass, so it counts as infinitely far off.
    let distance = |(a, b): (&f32, &f32)| if a.is_finite() { (a - b).abs() } else { f32::INFINITY };
    let worst = got.iter().zip(&expected).map(distance).fold(0.0, f32::max);
    if worst > TOLERANCE {
        bail!("the embeddings differ from the reference by {worst:e}, allowed are {TOLERANCE:e}");
    }
    println!("ok {} embeddings, the largest difference is {worst:e}", embeddings.len());
    Ok(())
}

/// One list of numbers for each sentence: the mean over its tokens, of length one.
fn embed(dir: &Path, sentences: &[&str]) -> Result<Vec<Vec<f32>>> {
    let device = Device::Cpu;
    let config: Config = parse(&dir.join("config.json"))?;
    let mut tokenizer = Tokenizer::from_file(dir.join("tokenizer.json")).map_err(Error::from_boxed)?;
    let padding = PaddingParams { strategy: PaddingStrategy::BatchLongest, ..PaddingParams::default() };
    tokenizer.with_padding(Some(padding));

    // SAFETY: nothing may write to a file while it is mapped. The loader makes the files of a model read-only and never
    // changes them.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&weights(dir)?, DTYPE, &device) }?;
    let model = BertModel::load(weights, &config)?;

    let encodings = tokenizer.encode_batch(sentences.to_vec(), true).map_err(Error::from_boxed)?;
    let tokens: Vec<&[u32]> = encodings.iter().map(Encoding::get_ids).collect();
    let mask: Vec<&[u32]> = encodings.iter().map(Encoding::get_attention_mask).collect();
    let shape = (sentences.len(), tokens[0].len());
    let tokens = Tensor::from_vec(tokens.concat(), shape, &device)?;
    let mask = Tensor::from_vec(mask.concat(), shape, &device)?;
    let states = model.forward(&tokens, &tokens.zeros_like()?, Some(&mask))?;

    let mask = mask.to_dtype(DTYPE)?.unsqueeze(D::Minus1)?;
    let mean = states.broadcast_mul(&mask)?.sum(1)?.broadcast_div(&mask.sum(1)?)?;
    let length = mean.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    Ok(mean.broadcast_div(&length)?.to_vec2()?)
}

/// The safetensors files of a model: one, or its parts.
fn weights(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        bail!("there is no safetensors file in {}", dir.display());
    }
    paths.sort();
    Ok(paths)
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot parse {}", path.display()))
}
