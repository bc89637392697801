// Runs a JavaScript snippet under Node.js as a browser would.
//
//   node litert_js.mjs NODE_MODULES FOLDER < inputs.json (writes FOLDER/outputs.json)
//
// FOLDER has snippet.mjs and the file that it loads. The inputs are a list of calls:
// the name of the function, and for each argument the name of its array and its numbers.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, folder] = process.argv.slice(2).map((one) => path.resolve(one));
const WASM = "/node_modules/@litertjs/core/wasm/";
const onDisk = (url) => String(url).replace("file://", "").replace(/^\/node_modules/, modules);

// What LiteRT.js has of a browser, or of a worker.
globalThis.self = globalThis;
globalThis.require = createRequire(import.meta.url);
globalThis.__dirname = path.join(modules, "@litertjs/core/wasm");
globalThis.__filename = path.join(globalThis.__dirname, "litert_wasm_internal.js");
globalThis.importScripts = (url) => (0, eval)(fs.readFileSync(onDisk(url), "utf8"));
globalThis.fetch = async (url) => new Response(fs.readFileSync(path.resolve(folder, onDisk(url))));

const core = pathToFileURL(path.join(modules, "@litertjs/core/dist/index.js")).href;
const code = fs.readFileSync(path.join(folder, "snippet.mjs"), "utf8");
if (!code.includes(`"${WASM}"`)) throw new Error("The snippet must load the wasm folder.");
const placed = path.join(folder, "placed.mjs");
fs.writeFileSync(placed, code.replace('"@litertjs/core"', JSON.stringify(core)));

const snippet = await import(pathToFileURL(placed).href);
const outputs = [];
for (const [name, ...given] of JSON.parse(fs.readFileSync(0, "utf8"))) {
  const found = await snippet[name](...given.map(([type, values]) => globalThis[type].from(values)));
  outputs.push(found);
}
const plain = (_, value) => (ArrayBuffer.isView(value) ? [...value] : value);
fs.writeFileSync(path.join(folder, "outputs.json"), JSON.stringify(outputs, plain));
