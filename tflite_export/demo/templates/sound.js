// Sounds: recorded, or from files.

const input = about.sound;
const RATE = input.spectrogram.sample_rate;
const SHOWN_RANGE = 1e4; // Of magnitudes: smaller ones look like none.
const WAVE = 0.25; // Share of the frame's height.
// Of features, from the smallest to the largest.
const COLORS = [
  [10, 7, 34], [66, 16, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10],
  [252, 255, 164],
];
const RECORDER = `registerProcessor("recorder", class extends AudioWorkletProcessor {
  process([[samples]]) {
    if (samples) this.port.postMessage(samples.slice());
    return true;
  }
});`;
const view = byId("view");
const seen = byId("seen");
const computed = spectrogramOf(input.spectrogram, input.num_frames);
// Samples at the network's rate, the first one that it gets, and what it gets.
const sound = { samples: new Float32Array(0), first: 0, features: null };
const NOTE = byId("note").textContent;

/** A length in seconds. */
const seconds = (samples) => `${(samples / RATE).toFixed(2)} s`;

// --- From samples to features ------------------------------------------------

/** The part of the sound that the network gets, followed by silence. */
function clip() {
  const part = new Float32Array(input.num_samples);
  part.set(sound.samples.subarray(sound.first, sound.first + input.num_samples));
  return part;
}

/** One channel at the network's rate, as the mean of all. */
function mixed(buffer) {
  const mean = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++)
    buffer
      .getChannelData(channel)
      .forEach((sample, i) => (mean[i] += sample / buffer.numberOfChannels));
  return mean;
}

/** Takes a sound; of a longer one, the part from its beginning. */
async function hear(samples) {
  sound.samples = samples;
  const more = samples.length - input.num_samples;
  byId("position").hidden = more <= 0;
  byId("start").max = Math.max(0, more) / RATE;
  byId("start").value = 0;
  byId("part").hidden = false;
  setEmpty(false);
  await moveTo(0);
}

/** Forgets the sound, and shows what to do. */
function forget(text) {
  byId("part").hidden = true;
  byId("note").textContent = NOTE;
  setEmpty(true, text);
}

/** Takes the part of the sound that begins at a sample. */
async function moveTo(first) {
  sound.first = first;
  const missing = input.num_samples - sound.samples.length;
  const all = seconds(sound.samples.length);
  byId("from").textContent = `from ${seconds(first)}`;
  byId("note").textContent =
    missing < 0
      ? `The network hears ${seconds(input.num_samples)} of ${all}.`
      : `The network hears all of it, ${all}${missing ? ", then silence" : ""}.`;
  const start = performance.now();
  sound.features = computed(clip());
  byId("features").textContent = `${(performance.now() - start).toFixed(1)} ms`;
  await update();
}

// --- What is drawn -----------------------------------------------------------

/** The color of a number from 0 to 1. */
function colorOf(share) {
  const place = Math.min(Math.max(share, 0), 1) * (COLORS.length - 1);
  const i = Math.min(Math.floor(place), COLORS.length - 2);
  return COLORS[i].map((one, c) => one + (place - i) * (COLORS[i + 1][c] - one));
}

/** The smallest and the largest of many numbers. */
function limits(values) {
  return [Math.min, Math.max].map((pick) => values.reduce((a, b) => pick(a, b)));
}

/** Features as numbers from 0 to 1. Where they are no logarithms, theirs are shown, as
 *  most would look like none. */
function brightness() {
  let values = sound.features;
  let [low, high] = limits(values);
  if (input.spectrogram.log_offset === null && low >= 0 && high > 0) {
    const least = high / SHOWN_RANGE;
    values = values.map((value) => Math.log(Math.max(value, least)));
    [low, high] = limits(values);
  }
  return values.map((value) => (value - low) / (high - low || 1));
}

/** Draws what the network gets: time to the right, the first feature at the bottom. */
function showFeatures() {
  const { num_frames: frames, num_features: count } = input;
  const image = new ImageData(frames, count);
  brightness().forEach((share, i) => {
    const [frame, feature] = [Math.floor(i / count), i % count];
    const place = (count - 1 - feature) * frames + frame;
    image.data.set([...colorOf(share), 255], 4 * place);
  });
  seen.getContext("2d").putImageData(image, 0, 0);
}

/** Draws samples as a wave: the range of each column. */
function drawWave(samples, width, height) {
  const pen = view.getContext("2d");
  pen.fillStyle = getComputedStyle(view).color;
  const size = samples.length / width;
  for (let x = 0; x < width; x++) {
    const part = samples.subarray(Math.floor(x * size), Math.ceil((x + 1) * size));
    const [low, high] = limits(part);
    const top = ((1 - high) / 2) * height;
    pen.fillRect(x, top, 1, Math.max(1, ((high - low) / 2) * height));
  }
}

/** Draws the wave, and the features below it. */
function paint() {
  fitToScreen(view);
  if (!sound.features || state.empty) return;
  showFeatures();
  const top = Math.round(WAVE * view.height);
  drawWave(clip(), view.width, top);
  const pen = view.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.drawImage(seen, 0, top, view.width, view.height - top);
}

// --- Sound files -------------------------------------------------------------

/** Classifies a sound file. */
async function open(file) {
  fail("");
  let buffer;
  try {
    const decoder = new OfflineAudioContext(1, 1, RATE);
    buffer = await decoder.decodeAudioData(await file.arrayBuffer());
  } catch {
    fail(`${file.name || "The file"} is not a sound that this browser reads.`);
    return;
  }
  if (mode() !== "file") choose("file");
  await hear(mixed(buffer));
}

// --- Microphone --------------------------------------------------------------

/** Ends a recording before its time; null if there is none. */
let stopRecording = null;

/** Returns samples of the microphone at its own rate, enough for a clip.
 *
 * @param {MediaStream} stream Of the microphone.
 * @param {AudioContext} context Reads it.
 * @param {function(number): void} heard Gets which share of the clip there is so far.
 * @returns {Promise<Float32Array[]>} Parts of the recording; none if it was ended.
 */
async function listen(stream, context, heard) {
  // An address that contains the script, as pages from disk may load no other one.
  const script = `data:text/javascript,${encodeURIComponent(RECORDER)}`;
  await context.audioWorklet.addModule(script);
  const recorder = new AudioWorkletNode(context, "recorder");
  context.createMediaStreamSource(stream).connect(recorder);
  recorder.connect(context.destination); // Without it, some browsers read nothing.
  const wanted = (input.num_samples / RATE) * context.sampleRate;
  const parts = [];
  let count = 0;
  return new Promise((resolve) => {
    const end = (heardParts) => {
      recorder.port.onmessage = null;
      resolve(heardParts);
    };
    stopRecording = () => end([]);
    recorder.port.onmessage = ({ data }) => {
      parts.push(data);
      count += data.length;
      heard(count / wanted);
      if (count >= wanted) end(parts);
    };
  });
}

/** Parts of a recording as one clip at the network's rate. */
async function resampled(parts, rate) {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const offline = new OfflineAudioContext(1, input.num_samples, RATE);
  const buffer = offline.createBuffer(1, length, rate);
  parts.reduce((at, part) => {
    buffer.copyToChannel(part, 0, at);
    return at + part.length;
  }, 0);
  const player = new AudioBufferSourceNode(offline, { buffer });
  player.connect(offline.destination);
  player.start();
  return mixed(await offline.startRendering());
}

/** Records a clip, and classifies it. */
async function record() {
  fail("");
  byId("record").disabled = true;
  forget("Starting the microphone");
  const context = new AudioContext();
  let stream;
  try {
    // The sound as it is: training had no such processing either.
    const audio = { echoCancellation: false, noiseSuppression: false };
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { ...audio, autoGainControl: false },
    });
    if (mode() !== "record") return;
    await context.resume();
    const parts = await listen(stream, context, showProgress);
    if (parts.length && mode() === "record")
      await hear(await resampled(parts, context.sampleRate));
  } catch (error) {
    if (mode() === "record")
      setEmpty(true, `The microphone cannot be used: ${error.message}`);
  } finally {
    for (const track of stream?.getTracks() ?? []) track.stop();
    context.close();
    showProgress(0);
    byId("record").disabled = false;
    stopRecording = null;
  }
}

/** Shows how much of a clip is recorded, from 0 to 1. */
function showProgress(share) {
  byId("record").style.setProperty("--done", `${100 * Math.min(share, 1)}%`);
  document.body.dataset.recording = share > 0;
  if (share) byId("hint").textContent = "Speak now";
}

/** Plays what the network gets. */
async function play() {
  const context = new AudioContext();
  const buffer = new AudioBuffer({ length: input.num_samples, sampleRate: RATE });
  buffer.copyToChannel(clip(), 0);
  const player = new AudioBufferSourceNode(context, { buffer });
  player.connect(context.destination);
  player.onended = () => context.close();
  player.start();
}

byId("record").addEventListener("click", record);
byId("play").addEventListener("click", play);
byId("start").addEventListener("input", (event) =>
  moveTo(Math.round(event.target.value * RATE)),
);

// --- Start -------------------------------------------------------------------

/** Begins a mode, and ends the last one. */
function enter(name) {
  stopRecording?.();
  const records = Boolean(navigator.mediaDevices);
  byId("record").hidden = !records;
  byId("record-instead").hidden = records;
  forget();
}

await start({
  shape: input.shape,
  dtype: input.dtype,
  nothing: "No sound yet",
  fileMode: "file",
  waiting: {
    record: navigator.mediaDevices
      ? `Press Record, and speak for ${seconds(input.num_samples)}`
      : "Recording here needs https or localhost. You can use the device's recorder.",
    file: matchMedia("(hover: hover)").matches
      ? "Choose, drop or paste a sound"
      : "Choose a sound",
  },
  show: { classes: showClasses },
  clear: () => [view, seen].forEach(wipe),
  values: () => encodedFeatures(sound.features, input),
  enter,
  paint,
  open,
});
