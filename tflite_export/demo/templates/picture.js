// Pictures: drawn, from files, or from a camera.

const input = about.picture;
const LONGEST_SIDE = 2048; // Of a picture, in pixels; larger ones are made smaller.
const CAMERA_SIDE = 640;
const DRAWING_SIDE = 480;
const PEN = 0.1; // Width of a stroke, as a share of the drawing,
const LEAST_PEN = 1.6; // and at least so many pixels of the input.
const view = byId("view");

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

/** Draws the scene into the frame. */
function paint() {
  fitToScreen(view);
  const pen = view.getContext("2d");
  pen.imageSmoothingEnabled = scene.width >= view.width / 4;
  pen.drawImage(scene, 0, 0, view.width, view.height);
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

/** Begins a mode, and ends the last one. */
function enter(name) {
  // Frames follow each other too fast to be read aloud.
  byId("answer").setAttribute("aria-live", name === "camera" ? "off" : "polite");
  if (name !== "camera") stopCamera();
  if (name === "draw") clearDrawing();
  else setEmpty(true);
  if (name === "camera") startCamera();
}

/** What the network gets for the scene. */
function values() {
  const bytes = inputBytes();
  showSeen(bytes);
  return encoded(bytes);
}

await start({
  shape: [1, input.height, input.width, input.channels],
  dtype: input.dtype,
  nothing: "No picture yet",
  fileMode: "picture",
  waiting: {
    draw: "Draw here",
    picture: matchMedia("(hover: hover)").matches
      ? "Choose, drop or paste a picture"
      : "Choose a picture",
    camera: "Starting the camera",
  },
  show: { classes: showClasses, mask: showMask, boxes: showBoxes },
  clear: () => ["overlay", "seen"].map(byId).forEach(wipe),
  enter,
  values,
  paint,
  open,
});
