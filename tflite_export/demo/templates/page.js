// What every page has: the network, its outputs, and what is shown of them.

/**
 * What inputs are made of: pictures, or sounds. `start` gets it.
 *
 * @typedef {object} Source
 * @property {number[]} shape Of the input.
 * @property {string} dtype Of the input.
 * @property {string} nothing What is shown as long as there is no input.
 * @property {string} fileMode The mode in which a click on the frame chooses a file.
 * @property {Object<string, string>} waiting Mode -> what to do as long as there is none.
 * @property {Object<string, function(Object): void>} show Task -> shows outputs.
 * @property {function(string): void} enter Begins a mode, and ends the last one.
 * @property {function(): TypedArray} values What the network gets.
 * @property {function(): void} paint Draws the input into the frame.
 * @property {function(): void} clear Removes what was drawn from the network's input.
 * @property {function(File): Promise<void>} open Takes the input from a file.
 */

const byId = (id) => document.getElementById(id);
const about = JSON.parse(byId("demo").textContent);
const { outputs, labels } = about;

const ARRAYS = { uint8: Uint8Array, float32: Float32Array };
const FEW = 12; // So many classes are all shown, in their order; of more the first ones.
const SHOWN = 5;
const percent = new Intl.NumberFormat("en", {
  style: "percent",
  minimumFractionDigits: 1,
  maximumFractionDigits: 1,
});

// --- LiteRT.js ---------------------------------------------------------------

/** The bytes of an element that contains base64 of gzip. */
async function inflate(id) {
  const packed = await fetch(`data:;base64,${byId(id).textContent.trim()}`);
  const stream = packed.body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Starts LiteRT.js; returns its module and the network. */
async function load() {
  const litert = await import("@litertjs/core");
  if (about.address) {
    await litert.loadLiteRt(about.address);
  } else {
    const [loader, binary] = await Promise.all([inflate("loader"), inflate("binary")]);
    window.Module = { wasmBinary: binary };
    const script = URL.createObjectURL(new Blob([loader], { type: "text/javascript" }));
    await litert.loadLiteRt(`${script}#.js`); // It wants the name of a script.
    URL.revokeObjectURL(script);
  }
  const bytes = await inflate("model");
  const network = await litert.loadAndCompile(bytes, { accelerator: "wasm" });
  return { litert, network };
}

/** Runs the network: output -> codes or floats, and the milliseconds of it alone. */
async function run({ litert, network }, values) {
  const tensor = new litert.Tensor(values, source.shape);
  const start = performance.now();
  const results = await network.run([tensor]);
  const milliseconds = performance.now() - start;
  const found = {};
  for (const [i, { name }] of network.getOutputDetails().entries()) {
    found[name] = (await results[i].data()).slice();
    results[i].delete();
  }
  tensor.delete();
  return { found, milliseconds };
}

// --- From the outputs to what is shown ---------------------------------------

/** Real numbers of an output. */
function realValues(found, { name, scale, zero_point }) {
  const values = Float64Array.from(found[name]);
  return scale === null ? values : values.map((code) => (code - zero_point) * scale);
}

/** Probabilities of scores. */
function probabilities(scores) {
  if (outputs.meaning !== "logits") return scores;
  if (scores.length === 1) return scores.map((score) => 1 / (1 + Math.exp(-score)));
  const largest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - largest));
  const total = powers.reduce((sum, power) => sum + power);
  return powers.map((power) => power / total);
}

/** The place of the largest number, the first of equal ones. */
const argmax = (values) =>
  values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

/** Shows the answer, and a row per entry: {label, share, best, color}; a share of null
 *  is not known. */
function showRows(answer, certainty, entries) {
  byId("answer").textContent = answer;
  byId("answer").parentElement.classList.remove("waiting");
  byId("certainty").textContent = certainty;
  const list = byId("bars");
  while (list.children.length > entries.length) list.lastChild.remove();
  while (list.children.length < entries.length) list.append(newRow());
  for (const [i, { label, share, best, color }] of entries.entries()) {
    const row = list.children[i];
    row.classList.toggle("best", best);
    row.querySelector(".label").textContent = label;
    row.querySelector(".label").title = label;
    row.querySelector(".share").textContent =
      share === null ? "" : percent.format(share);
    row.querySelector(".fill").style.width = `${100 * (share ?? 0)}%`;
    if (color) row.style.setProperty("--color", `rgb(${color})`);
    else row.style.removeProperty("--color");
  }
}

/** A row of the list. */
function newRow() {
  const row = document.createElement("li");
  for (const name of ["label", "track", "share"]) {
    const part = document.createElement("span");
    part.className = name;
    row.append(part);
  }
  const fill = document.createElement("span");
  fill.className = "fill";
  row.querySelector(".track").append(fill);
  return row;
}

/** Shows the scores of classes. */
function showClasses(found) {
  const shares = [...probabilities(realValues(found, outputs.scores))];
  const best = argmax(shares);
  let order = shares.map((_, i) => i);
  if (order.length > FEW)
    order = order.sort((i, j) => shares[j] - shares[i] || i - j).slice(0, SHOWN);
  const yes = shares.length > 1 || shares[0] >= 0.5;
  const sure = yes ? shares[best] : 1 - shares[0];
  const entries = order.map((i) => ({
    label: labels[i],
    share: shares[i],
    best: i === best,
  }));
  showRows(yes ? labels[best] : `not ${labels[0]}`, percent.format(sure), entries);
}


// --- The page ----------------------------------------------------------------

let source; // A `Source`, from `start`.
const state = { ready: null, running: false, again: false, empty: true, runs: 0 };

/** The chosen mode: where inputs come from. */
const mode = () => document.querySelector("[name=mode]:checked").value;

/** Whether LiteRT.js did not start; what was said then stays. */
const hasFailed = () => document.body.dataset.state === "failed";

/** Shows a failure, "" for none. */
function fail(text) {
  if (hasFailed() && !text) return;
  byId("failure").textContent = text;
  byId("failure").hidden = !text;
}

/** Shows what to do as long as there is no input. */
function setEmpty(empty, text = source.waiting[mode()]) {
  state.empty = empty;
  document.body.dataset.empty = empty;
  byId("hint").textContent = empty ? text : "";
  if (!empty || hasFailed()) return;
  const all = outputs.task === "classes" && labels.length <= FEW ? labels : [];
  const rows = all.map((label) => ({ label, share: null, best: false }));
  showRows(state.ready ? source.nothing : "Loading the network", "", rows);
  byId("answer").parentElement.classList.add("waiting");
  source.clear();
}

/** Empties a canvas. */
function wipe(canvas) {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

/** Gives a canvas the pixels of the screen that it covers; returns how many there are for
 *  one of CSS. */
function fitToScreen(canvas) {
  const pixels = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * pixels;
  canvas.height = canvas.clientHeight * pixels;
  return pixels;
}

/** Runs the network on the input; while it runs, only remembers that there is another. */
async function update() {
  source.paint();
  if (!state.ready || state.empty) return;
  state.again = true;
  if (state.running) return;
  document.body.dataset.running = state.running = true;
  try {
    while (state.again && !state.empty) {
      state.again = false;
      await step();
    }
    document.body.dataset.runs = ++state.runs;
  } catch (error) {
    fail(`The network could not be run: ${error.message ?? error}`);
  } finally {
    document.body.dataset.running = state.running = false;
  }
}

/** Runs the network once. */
async function step() {
  const { found, milliseconds } = await run(state.ready, source.values());
  if (state.empty) return;
  source.show[outputs.task](found);
  byId("time").textContent = `${milliseconds.toFixed(1)} ms`;
}

/** Chooses where inputs come from. */
function choose(name) {
  document.querySelector(`[name=mode][value=${name}]`).checked = true;
  document.body.dataset.mode = name;
  fail("");
  source.enter(name);
}

/** Takes files that are chosen, dropped or pasted. */
function listenForFiles() {
  for (const field of document.querySelectorAll("input[type=file]"))
    field.addEventListener("change", () => {
      if (field.files.length) source.open(field.files[0]);
      field.value = ""; // So that the same file can be chosen again.
    });
  byId("frame").addEventListener("click", () => {
    if (mode() === source.fileMode) byId("choose").click();
  });
  for (const name of ["dragover", "dragleave", "drop"])
    document.addEventListener(name, (event) => {
      event.preventDefault();
      byId("frame").classList.toggle("over", name === "dragover");
      const [file] = name === "drop" ? event.dataTransfer.files : [];
      if (file) source.open(file);
    });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) source.open(file);
  });
}

/** Starts the page. */
async function start(given) {
  source = given;
  listenForFiles();
  for (const field of document.querySelectorAll("[name=mode]"))
    field.addEventListener("change", () => choose(mode()));
  window.addEventListener("resize", () => source.paint());
  choose(mode());
  try {
    state.ready = await load();
    const size = source.shape.reduce((product, length) => product * length, 1);
    await run(state.ready, new ARRAYS[source.dtype](size)); // The first run is slower.
    document.body.dataset.state = "ready";
    if (state.empty) setEmpty(true, byId("hint").textContent);
    else update();
  } catch (error) {
    document.body.dataset.state = "failed";
    showRows("The network does not run", "", []);
    const where = about.address ? ` from ${new URL(about.address).host}` : "";
    fail(
      `LiteRT.js could not be started${where}: ${error.message ?? error}.` +
        (about.address ? " A page written with --offline needs no network." : ""),
    );
  }
}
