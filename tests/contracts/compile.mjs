// Compiles RPB.sol to RPB.json = {abi, bytecode}. With --check, fails when RPB.json is not what would be written.
// Needs `npm ci` in ../evm. Run: node tests/contracts/compile.mjs [--check]
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const source = new URL("RPB.sol", import.meta.url);
const target = new URL("RPB.json", import.meta.url);
const solc = createRequire(new URL("../evm/package.json", import.meta.url))("solc");

const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: "Solidity",
      sources: { "RPB.sol": { content: readFileSync(source, "utf8") } },
      settings: {
        optimizer: { enabled: true, runs: 200 },
        outputSelection: { "RPB.sol": { RPB: ["abi", "evm.bytecode.object"] } },
      },
    }),
  ),
);
if (output.errors?.length) {
  console.error(output.errors.map((error) => error.formattedMessage).join("\n"));
  process.exit(1);
}
const { abi, evm } = output.contracts["RPB.sol"].RPB;
const json = JSON.stringify({ abi, bytecode: `0x${evm.bytecode.object}` }, null, 2) + "\n";
if (!process.argv.includes("--check")) {
  writeFileSync(target, json);
} else if (json !== readFileSync(target, "utf8")) {
  console.error("RPB.json is not what compile.mjs makes of RPB.sol: run it and commit the result");
  process.exit(1);
}
