// The features of a sound, as tf.signal computes them, in float64. No page is needed.

/** The cosine windows of tf.signal: a - b cos(2 pi i / n). */
const WINDOWS = { hann: [0.5, 0.5], hamming: [0.54, 0.46] };

/** A window; like those of tf.signal, periodic only if its length is even. */
function windowOf(name, length) {
  if (name === null || length === 1) return new Float64Array(length).fill(1);
  const [a, b] = WINDOWS[name];
  const period = length % 2 ? length - 1 : length;
  return Float64Array.from(
    { length },
    (_, i) => a - b * Math.cos((2 * Math.PI * i) / period),
  );
}

/** Returns a function from real samples, followed by zeros up to a length, to the power of
 *  their frequencies. */
function powerSpectrum(length) {
  const angle = (i) => (2 * Math.PI * i) / length;
  const cosines = Float64Array.from({ length }, (_, i) => Math.cos(angle(i)));
  const sines = Float64Array.from({ length }, (_, i) => Math.sin(angle(i)));
  const real = new Float64Array(length);
  const imaginary = new Float64Array(length);
  let samples;

  /** The transform, by its definition, of every `stride`-th sample. */
  function direct(from, stride, size, to) {
    for (let k = 0; k < size; k++) {
      let re = 0;
      let im = 0;
      for (let i = 0; i < size; i++) {
        const sample = samples[from + stride * i] ?? 0;
        const turn = (i * k * stride) % length;
        re += sample * cosines[turn];
        im -= sample * sines[turn];
      }
      real[to + k] = re;
      imaginary[to + k] = im;
    }
  }

  /** The same from the transforms of two halves, as long as there are halves. */
  function transform(from, stride, size, to) {
    if (size % 2) return direct(from, stride, size, to);
    const half = size / 2;
    transform(from, 2 * stride, half, to);
    transform(from + stride, 2 * stride, half, to + half);
    for (let i = to; i < to + half; i++) {
      const j = i + half;
      const turn = (i - to) * stride;
      const re = cosines[turn] * real[j] + sines[turn] * imaginary[j];
      const im = cosines[turn] * imaginary[j] - sines[turn] * real[j];
      real[j] = real[i] - re;
      imaginary[j] = imaginary[i] - im;
      real[i] += re;
      imaginary[i] += im;
    }
  }

  return (frame) => {
    samples = frame;
    transform(0, 1, length, 0);
    return Float64Array.from(
      { length: Math.floor(length / 2) + 1 },
      (_, k) => real[k] ** 2 + imaginary[k] ** 2,
    );
  };
}

/** The triangles of tf.signal.linear_to_mel_weight_matrix, for every band the weights of
 *  all frequencies. */
function melBands({ sample_rate, num_mel_bins, lower_hz, upper_hz }, frequencies) {
  const mel = (hertz) => 1127 * Math.log(1 + hertz / 700);
  const [low, high] = [mel(lower_hz), mel(upper_hz)];
  const edge = (i) => low + ((high - low) * i) / (num_mel_bins + 1);
  return Array.from({ length: num_mel_bins }, (_, band) =>
    Float64Array.from({ length: frequencies }, (_, i) => {
      const at = mel(((sample_rate / 2) * i) / (frequencies - 1));
      const rise = (at - edge(band)) / (edge(band + 1) - edge(band));
      const fall = (edge(band + 2) - at) / (edge(band + 2) - edge(band + 1));
      return Math.max(0, Math.min(rise, fall));
    }),
  );
}

/** The rows of tf.signal.mfccs_from_log_mel_spectrograms: a discrete cosine transform. */
function cosineRows(count, length) {
  return Array.from({ length: count }, (_, k) =>
    Float64Array.from(
      { length },
      (_, i) => Math.sqrt(2 / length) * Math.cos((Math.PI * k * (2 * i + 1)) / (2 * length)),
    ),
  );
}

/** The products of rows and values. */
function times(rows, values) {
  return Float64Array.from(rows, (row) => {
    let sum = 0;
    for (let i = 0; i < row.length; i++) sum += row[i] * values[i];
    return sum;
  });
}

/** What samples from -1 to 1 are multiplied by, so that they are as in training. */
function loudness({ full_scale }, clip) {
  if (full_scale !== "max") return full_scale;
  const largest = clip.reduce((most, sample) => Math.max(most, sample), 0);
  return largest > 0 ? 1 / largest : 1;
}

/** Returns a function from the samples of a clip, -1 to 1, to its features, frame by
 *  frame.
 *
 * @param {object} about A `Spectrogram`, with the length of the transform.
 * @param {number} frames How many frames a clip has.
 */
function spectrogramOf(about, frames) {
  const { frame_length, frame_step, fft_length, kind, log_offset } = about;
  const [mean, std] = [[about.mean].flat(), [about.std].flat()]; // One, or per feature.
  const shape = windowOf(about.window, frame_length);
  const power = powerSpectrum(fft_length);
  const frequencies = Math.floor(fft_length / 2) + 1;
  const bands = about.num_mel_bins === null ? null : melBands(about, frequencies);
  const cosines =
    about.num_mfccs === null ? null : cosineRows(about.num_mfccs, about.num_mel_bins);

  /** The features of windowed samples. */
  function features(samples) {
    let values = power(samples);
    if (kind === "magnitude") values = values.map(Math.sqrt);
    if (bands) values = times(bands, values);
    if (log_offset !== null) values = values.map((value) => Math.log(value + log_offset));
    if (cosines) values = times(cosines, values);
    return values.map(
      (value, i) => (value - mean[i % mean.length]) / std[i % std.length],
    );
  }

  return (clip) => {
    const factor = loudness(about, clip);
    const all = Array.from({ length: frames }, (_, frame) =>
      features(
        shape.map((weight, i) => weight * factor * (clip[frame * frame_step + i] ?? 0)),
      ),
    );
    return Float64Array.from(all.flatMap((values) => [...values]));
  };
}

/** A number rounded to the nearest integer, ties to even. */
function roundEven(value) {
  const near = Math.round(value);
  return near - value === 0.5 && near % 2 !== 0 ? near - 1 : near;
}

/** What the network gets for features: codes of its input's grid, or floats. */
function encodedFeatures(features, { dtype, scale, zero_point }) {
  if (dtype === "float32") return Float32Array.from(features);
  const codes = Uint8ClampedArray.from(features, (value) => {
    const steps = Math.fround(Math.fround(value) / Math.fround(scale));
    return roundEven(steps) + zero_point;
  });
  return new Uint8Array(codes.buffer);
}
