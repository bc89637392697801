const byId = (id) => document.getElementById(id);
const about = JSON.parse(byId("demo").textContent);
const { picture: input, outputs, labels } = about;

const ARRAYS = { uint8: Uint8Array, float32: Float32Array };
const FEW = 12; // So many classes are all shown, in their order; of more the first ones.
const SHOWN = 5;
const LONGEST_SIDE = 2048; // Of a picture, in pixels; larger ones are made smaller.
const CAMERA_SIDE = 640;
const DRAWING_SIDE = 480;
const PEN = 0.1; // Width of a stroke, as a share of the drawing,
const LEAST_PEN = 1.6; // and at least so many pixels of the input.
const OVERLAP = 0.5; // Boxes of a class that overlap more are one object.
const COLORS = [
  [66, 105, 208], [239, 177, 24], [255, 114, 92], [108, 197, 176], [60, 169, 81],
  [255, 138, 183], [164, 99, 242], [151, 187, 245], [156, 107, 78], [148, 152, 160],
];
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
  const shape = [1, input.height, input.width, input.channels];
  const tensor = new litert.Tensor(values, shape);
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

// --- From a picture to the input ---------------------------------------------

const scene = document.createElement("canvas"); // The part that is classified.
const scenePen = scene.getContext("2d", { willReadFrequently: true });

/** The largest middle part of a picture with the shape of the input. */
function middle(width, height) {
  const shape = input.width / input.height;
  const w = Math.round(Math.min(width, height * shape));
  const h = Math.round(Math.min(height, width / shape));
  return [Math.floor((width - w) / 2), Math.floor((height - h) / 2), w, h];
}

/** Makes the middle of a picture the scene; its pixels stay as they are if they fit. */
function show(picture, width, height, longest) {
  const part = middle(width, height);
  const scale = Math.min(1, longest / Math.max(part[2], part[3]));
  scene.width = Math.max(1, Math.round(part[2] * scale));
  scene.height = Math.max(1, Math.round(part[3] * scale));
  scenePen.fillStyle = "#fff"; // Under transparent pictures.
  scenePen.fillRect(0, 0, scene.width, scene.height);
  scenePen.imageSmoothingQuality = "high";
  scenePen.drawImage(picture, ...part, 0, 0, scene.width, scene.height);
  setEmpty(false);
}

/** For each place of a result: its first pixel, and how much it takes of each. */
function boxFilter(from, to) {
  return Array.from({ length: to }, (_, i) => {
    const begin = (i * from) / to;
    const end = ((i + 1) * from) / to;
    const first = Math.floor(begin);
    const weights = [];
    for (let j = first; j < Math.min(Math.ceil(end), from); j++)
      weights.push((Math.min(end, j + 1) - Math.max(begin, j)) / (end - begin));
    return { first, weights };
  });
}

/** RGB bytes of the scene in the size of the input: means of areas. */
function resized() {
  const { width, height, data } = scenePen.getImageData(0, 0, scene.width, scene.height);
  const line = input.width * 3;
  const rows = new Float32Array(height * line);
  boxFilter(width, input.width).forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++)
      for (let j = 0; j < weights.length; j++) {
        const from = (y * width + first + j) * 4;
        const to = y * line + x * 3;
        rows[to] += weights[j] * data[from];
        rows[to + 1] += weights[j] * data[from + 1];
        rows[to + 2] += weights[j] * data[from + 2];
      }
  });
  const rgb = new Float32Array(input.height * line);
  boxFilter(height, input.height).forEach(({ first, weights }, y) => {
    for (let j = 0; j < weights.length; j++)
      for (let i = 0; i < line; i++)
        rgb[y * line + i] += weights[j] * rows[(first + j) * line + i];
  });
  return new Uint8ClampedArray(rgb); // Rounds to the nearest.
}

/** The bytes of the input; gray as Pillow's convert("L"). */
function inputBytes() {
  const rgb = resized();
  const flip = byId("invert").checked ? 255 : 0;
  if (input.channels === 3) return rgb.map((byte) => byte ^ flip);
  const gray = new Uint8ClampedArray(rgb.length / 3);
  for (let i = 0; i < gray.length; i++) {
    const sum = 19595 * rgb[3 * i] + 38470 * rgb[3 * i + 1] + 7471 * rgb[3 * i + 2];
    gray[i] = ((sum + 32768) >> 16) ^ flip;
  }
  return gray;
}

/** What the network gets for bytes. */
function encoded(bytes) {
  const { table, channels } = input;
  const values = new ARRAYS[input.dtype](bytes.length);
  for (let i = 0; i < values.length; i++) values[i] = table[i % channels][bytes[i]];
  return values;
}

/** Draws what the network gets. */
function showSeen(bytes) {
  const image = new ImageData(input.width, input.height);
  for (let i = 0; i < input.width * input.height; i++) {
    for (let c = 0; c < 3; c++)
      image.data[4 * i + c] = bytes[i * input.channels + (input.channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  byId("seen").getContext("2d").putImageData(image, 0, 0);
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

/** The class of each pixel of a mask; -1 for none. */
function classesOf(scores, count) {
  const least = outputs.meaning === "logits" ? 0 : 0.5;
  return Int32Array.from({ length: scores.length / count }, (_, i) => {
    if (count === 1) return scores[i] > least ? 0 : -1;
    return argmax(scores.subarray(i * count, (i + 1) * count));
  });
}

/** Shows a mask over the picture, and how much of it each class covers. */
function showMask(found) {
  const [height, width, count] = outputs.scores.shape.slice(1);
  const classes = classesOf(realValues(found, outputs.scores), count);
  const image = new ImageData(width, height);
  const areas = new Float64Array(count);
  classes.forEach((one, i) => {
    if (one < 0) return;
    areas[one] += 1 / classes.length;
    image.data.set([...COLORS[one % COLORS.length], 150], 4 * i);
  });
  const overlay = byId("overlay");
  [overlay.width, overlay.height] = [width, height];
  overlay.getContext("2d").putImageData(image, 0, 0);
  const order = [...areas.keys()].sort((i, j) => areas[j] - areas[i]).slice(0, SHOWN);
  const entries = order.map((i) => ({
    label: labels[i],
    share: areas[i],
    best: i === order[0],
    color: COLORS[i % COLORS.length],
  }));
  showRows(labels[order[0]], `${percent.format(areas[order[0]])} of the picture`, entries);
}

/** A box as [left, top, right, bottom], from 0 to 1. */
function corners([a, b, c, d]) {
  if (outputs.box_format === "yxyx") return [b, a, d, c];
  if (outputs.box_format === "xyxy") return [a, b, c, d];
  return [a - c / 2, b - d / 2, a + c / 2, b + d / 2];
}

/** The area that two boxes share, over the area of both. */
function overlap(one, other) {
  const width = Math.min(one[2], other[2]) - Math.max(one[0], other[0]);
  const height = Math.min(one[3], other[3]) - Math.max(one[1], other[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (area(one) + area(other) - width * height);
}

/** The objects of a picture, the surest first: {label, share, color, box}. */
function objects(found) {
  const scores = realValues(found, outputs.scores);
  const boxes = realValues(found, outputs.boxes);
  const count = labels.length;
  const least = Number(byId("threshold").value);
  const sure = [...scores.keys()].filter((i) => scores[i] >= least);
  const kept = [];
  for (const i of sure.sort((i, j) => scores[j] - scores[i])) {
    const [place, one] = [Math.floor(i / count), i % count];
    const box = corners(boxes.subarray(4 * place, 4 * place + 4));
    if (!kept.some((k) => k.one === one && overlap(k.box, box) > OVERLAP))
      kept.push({
        one,
        box,
        label: labels[one],
        share: scores[i],
        color: COLORS[one % COLORS.length],
      });
  }
  return kept;
}

/** Shows boxes over the picture, and a list of the objects. */
function showBoxes(found) {
  const kept = objects(found);
  const overlay = byId("overlay");
  const pixels = window.devicePixelRatio || 1;
  [overlay.width, overlay.height] = [overlay.clientWidth, overlay.clientHeight].map(
    (side) => side * pixels,
  );
  const pen = overlay.getContext("2d");
  pen.lineWidth = 3 * pixels;
  pen.font = `600 ${13 * pixels}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  for (const { box, label, color } of [...kept].reverse()) {
    const [left, top, right, bottom] = box.map(
      (part, i) => part * (i % 2 ? overlay.height : overlay.width),
    );
    pen.strokeStyle = pen.fillStyle = `rgb(${color})`;
    pen.strokeRect(left, top, right - left, bottom - top);
    const width = pen.measureText(label).width + 10 * pixels;
    const above = Math.max(0, top - 20 * pixels);
    pen.fillRect(left, above, width, 20 * pixels);
    pen.fillStyle = "#111";
    pen.fillText(label, left + 5 * pixels, above + 4 * pixels);
  }
  const entries = kept
    .slice(0, FEW)
    .map((one, i) => ({ ...one, best: i === 0 }));
  showRows(kept.length === 1 ? "1 object" : `${kept.length} objects`, "", entries);
}

const SHOW = { classes: showClasses, mask: showMask, boxes: showBoxes };

// --- The page ----------------------------------------------------------------

const WAITING = {
  draw: "Draw here",
  picture: matchMedia("(hover: hover)").matches
    ? "Choose, drop or paste a picture"
    : "Choose a picture",
  camera: "Starting the camera",
};
const state = { ready: null, running: false, again: false, empty: true, runs: 0 };
const view = byId("view");

/** The chosen source of pictures. */
const mode = () => document.querySelector("[name=mode]:checked").value;

/** Whether LiteRT.js did not start; what was said then stays. */
const hasFailed = () => document.body.dataset.state === "failed";

/** Shows a failure, "" for none. */
function fail(text) {
  if (hasFailed() && !text) return;
  byId("failure").textContent = text;
  byId("failure").hidden = !text;
}

/** Shows what to do as long as there is no picture. */
function setEmpty(empty, text = WAITING[mode()]) {
  state.empty = empty;
  document.body.dataset.empty = empty;
  byId("hint").textContent = empty ? text : "";
  if (!empty || hasFailed()) return;
  const all = outputs.task === "classes" && labels.length <= FEW ? labels : [];
  const rows = all.map((label) => ({ label, share: null, best: false }));
  showRows(state.ready ? "No picture yet" : "Loading the network", "", rows);
  byId("answer").parentElement.classList.add("waiting");
  for (const id of ["overlay", "seen"]) {
    const canvas = byId(id);
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  }
}

/** Draws the scene into the frame. */
function paint() {
  const pixels = window.devicePixelRatio || 1;
  view.width = view.clientWidth * pixels;
  view.height = view.clientHeight * pixels;
  const pen = view.getContext("2d");
  pen.imageSmoothingEnabled = scene.width >= view.width / 4;
  pen.drawImage(scene, 0, 0, view.width, view.height);
}

/** Classifies the scene; while the network runs, only remembers that it changed. */
async function update() {
  paint();
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

/** Classifies the scene once. */
async function step() {
  const bytes = inputBytes();
  showSeen(bytes);
  const { found, milliseconds } = await run(state.ready, encoded(bytes));
  if (state.empty) return;
  SHOW[outputs.task](found);
  byId("time").textContent = `${milliseconds.toFixed(1)} ms`;
}

// --- Drawing -----------------------------------------------------------------

/** Empties the drawing. */
function clearDrawing() {
  const scale = Math.ceil(DRAWING_SIDE / Math.max(input.width, input.height));
  [scene.width, scene.height] = [input.width * scale, input.height * scale];
  scenePen.fillStyle = byId("paper").checked ? "#fff" : "#000";
  scenePen.fillRect(0, 0, scene.width, scene.height);
  setEmpty(true);
  paint();
}

/** The place of a pointer in the drawing. */
function place(event) {
  const box = view.getBoundingClientRect();
  return [
    ((event.clientX - box.left) * scene.width) / box.width,
    ((event.clientY - box.top) * scene.height) / box.height,
  ];
}

/** Draws a line to where the pointer is now. */
function drawTo(event) {
  const points = event.getCoalescedEvents?.() ?? [];
  scenePen.strokeStyle = byId("paper").checked ? "#000" : "#fff";
  const pixel = scene.width / input.width;
  const side = Math.min(scene.width, scene.height);
  scenePen.lineWidth = Math.max(PEN * side, LEAST_PEN * pixel);
  scenePen.lineCap = scenePen.lineJoin = "round";
  scenePen.beginPath();
  scenePen.moveTo(...state.pen);
  for (const point of points.length ? points : [event]) {
    state.pen = place(point);
    scenePen.lineTo(...state.pen);
  }
  scenePen.stroke();
  setEmpty(false);
  update();
}

view.addEventListener("pointerdown", (event) => {
  if (mode() !== "draw" || event.button > 0) return;
  view.setPointerCapture(event.pointerId);
  state.pen = place(event);
  drawTo(event);
});
view.addEventListener("pointermove", (event) => {
  if (mode() === "draw" && view.hasPointerCapture(event.pointerId)) drawTo(event);
});
byId("clear").addEventListener("click", clearDrawing);
byId("paper").addEventListener("change", clearDrawing);
byId("invert").addEventListener("change", update);
byId("threshold")?.addEventListener("input", (event) => {
  byId("least").textContent = `${Math.round(100 * event.target.value)} %`;
  update();
});

// --- Pictures ----------------------------------------------------------------

/** Classifies a picture file. */
async function open(file) {
  fail("");
  let bitmap;
  try {
    // Bytes as in the file: training does not convert colors either.
    bitmap = await createImageBitmap(file, {
      colorSpaceConversion: "none",
      imageOrientation: "from-image",
    });
  } catch {
    fail(`${file.name || "The file"} is not a picture that this browser reads.`);
    return;
  }
  if (mode() !== "picture") choose("picture");
  show(bitmap, bitmap.width, bitmap.height, LONGEST_SIDE);
  bitmap.close();
  await update();
}

for (const field of document.querySelectorAll("input[type=file]"))
  field.addEventListener("change", () => {
    if (field.files.length) open(field.files[0]);
    field.value = ""; // So that the same file can be chosen again.
  });
byId("frame").addEventListener("click", () => {
  if (mode() === "picture") byId("choose").click();
});
for (const name of ["dragover", "dragleave", "drop"])
  document.addEventListener(name, (event) => {
    event.preventDefault();
    byId("frame").classList.toggle("over", name === "dragover");
    const [file] = name === "drop" ? event.dataTransfer.files : [];
    if (file) open(file);
  });
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) open(file);
});

// --- Camera ------------------------------------------------------------------

const camera = { stream: null, facing: "environment", paused: false };
const video = byId("video");

/** Starts the camera, or says why it cannot be used. */
async function startCamera() {
  stopCamera();
  const media = navigator.mediaDevices;
  byId("photo-instead").hidden = Boolean(media);
  byId("pause").hidden = !media;
  byId("flip").hidden = true;
  if (!media) {
    setEmpty(true, "The live camera needs https or localhost. You can take a photo.");
    return;
  }
  try {
    const facing = { facingMode: camera.facing };
    camera.stream = await media.getUserMedia({ video: facing, audio: false });
  } catch (error) {
    setEmpty(true, `The camera cannot be used: ${error.message}`);
    return;
  }
  if (mode() !== "camera") return stopCamera();
  video.srcObject = camera.stream;
  await video.play();
  const devices = await media.enumerateDevices();
  byId("flip").hidden = devices.filter(({ kind }) => kind === "videoinput").length < 2;
  setPaused(false);
}

/** Classifies one frame after the other. */
async function watch() {
  if (mode() !== "camera" || camera.paused || !camera.stream) return;
  if (video.videoWidth) {
    show(video, video.videoWidth, video.videoHeight, CAMERA_SIDE);
    await update();
  }
  requestAnimationFrame(watch);
}

/** Stops or goes on with classifying frames. */
function setPaused(paused) {
  camera.paused = paused;
  byId("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) watch();
}

/** Switches the camera off. */
function stopCamera() {
  for (const track of camera.stream?.getTracks() ?? []) track.stop();
  camera.stream = video.srcObject = null;
}

byId("pause").addEventListener("click", () => setPaused(!camera.paused));
byId("flip").addEventListener("click", () => {
  camera.facing = camera.facing === "user" ? "environment" : "user";
  startCamera();
});
document.addEventListener("visibilitychange", () => {
  if (mode() !== "camera") return;
  if (document.hidden) stopCamera();
  else startCamera();
});

// --- Start -------------------------------------------------------------------

/** Chooses a source of pictures. */
function choose(name) {
  document.querySelector(`[name=mode][value=${name}]`).checked = true;
  document.body.dataset.mode = name;
  // Frames follow each other too fast to be read aloud.
  byId("answer").setAttribute("aria-live", name === "camera" ? "off" : "polite");
  fail("");
  if (name !== "camera") stopCamera();
  if (name === "draw") clearDrawing();
  else setEmpty(true);
  if (name === "camera") startCamera();
}

for (const field of document.querySelectorAll("[name=mode]"))
  field.addEventListener("change", () => choose(mode()));
window.addEventListener("resize", paint);
choose(mode());
try {
  state.ready = await load();
  const size = input.width * input.height * input.channels;
  await run(state.ready, new ARRAYS[input.dtype](size)); // The first run is slower.
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
