// Embeddings of the reference's sentences by llama.cpp: `node llama.mjs FILE.gguf REFERENCE.json`, where node-llama-cpp is installed.
import fs from "node:fs";
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const here = createRequire(`${process.cwd()}/`);
const {getLlama} = await import(pathToFileURL(here.resolve("node-llama-cpp")).href);
const [modelPath, reference] = process.argv.slice(2);
const {sentences} = JSON.parse(fs.readFileSync(reference, "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath});
const context = await model.createEmbeddingContext();
const embeddings = [];
for (const sentence of sentences) {
    embeddings.push([...(await context.getEmbeddingFor(sentence)).vector]);
}
const {version} = JSON.parse(fs.readFileSync("node_modules/node-llama-cpp/package.json", "utf8"));
console.log(JSON.stringify({version, release: llama.llamaCppRelease.release, embeddings}));
process.exit(0);
