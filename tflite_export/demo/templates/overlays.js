// Masks and boxes over a picture.

const OVERLAP = 0.5; // Boxes of a class that overlap more are one object.
const COLORS = [
  [66, 105, 208], [239, 177, 24], [255, 114, 92], [108, 197, 176], [60, 169, 81],
  [255, 138, 183], [164, 99, 242], [151, 187, 245], [156, 107, 78], [148, 152, 160],
];

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
  const pixels = fitToScreen(overlay);
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
