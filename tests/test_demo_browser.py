"""Demo pages in headless Chromium: what they compute, and whether one can use them."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from harness import tiny
from web.packages import PACKAGES
from web.pages import DESKTOP, PHONE, DemoPage, png

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export.demo import PageServer
from tflite_export.file import from_bytes
from tflite_export.runtimes import Runner

layers = keras.layers
ROOT = Path(__file__).parents[1]
LONG = "a fox that has a long name " * 4
LABELS = ["ant", "</script><b>bee", "cat & 'dog'", "eel", LONG]


def exported(build, folder, mean=0, std=255, **options):
    """The file of a model with random weights, trained on (byte - mean) / std."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    student = tf_lsq.quantize_model(tiny.randomize(build(), rng))
    x = rng.integers(0, 256, (64, 8, 8, 3)).astype(np.float32)
    x = (x - np.float32(mean)) / np.float32(std)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    path = folder / "net.tflite"
    tflite_export.export_model(student, path, **options)
    return path


def values_of(path, pictures, mean=0, std=255):
    """Real outputs of a file for bytes, trained on (byte - mean) / std."""
    graph = from_bytes(path.read_bytes())
    [(name, tensor)] = graph.inputs.items()
    grid = graph.tensors[tensor].quantization
    x = (pictures.astype(np.float32) - np.float32(mean)) / np.float32(std)
    if grid is not None:
        dtype = graph.tensors[tensor].dtype
        limits = np.iinfo(dtype)
        codes = np.rint(x / grid.scale[0]) + grid.zero_point
        x = np.clip(codes, limits.min, limits.max).astype(dtype)
    found = Runner(graph).run({name: x})
    outputs = {}
    for end, values in found.items():
        own = graph.tensors[graph.outputs[end]].quantization
        outputs[end] = values
        if own is not None:
            outputs[end] = (values.astype(np.float64) - own.zero_point) * own.scale[0]
    return outputs


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """The file of an RGB classifier, and its page that needs no network."""
    folder = tmp_path_factory.mktemp("demo")
    path = exported(tiny.residual, folder)
    page = folder / "page.html"
    tflite_export.write_demo(
        path, page, labels=LABELS, mean=0, std=255, offline=PACKAGES
    )
    return path, page


def percent(share):
    """As JavaScript writes it: ties are rounded up."""
    return f"{np.floor(1000 * share + 0.5) / 10:.1f}%"


@pytest.mark.parametrize("ends", ["int8", "uint8", "float32"])
def test_a_page_from_disk_shows_what_python_computes(running, tmp_path, rng, ends):
    pixels = {"mean": (0, 9, 40), "std": (255, 250, 200)}
    types = {"input_type": ends, "output_type": ends}
    path = exported(tiny.residual, tmp_path, **pixels, **types)
    page = tmp_path / "page.html"
    tflite_export.write_demo(path, page, labels=LABELS, offline=PACKAGES, **pixels)
    pictures = rng.integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    [scores] = values_of(path, pictures, **pixels).values()
    demo = DemoPage(running, page.as_uri())
    assert demo.state == "ready", demo.text("#failure")
    for picture, row in zip(pictures, scores, strict=True):
        demo.classify(picture)
        np.testing.assert_array_equal(demo.bytes_seen(), picture)
        names = [label.strip() for label in LABELS]
        assert demo.rows() == list(zip(names, map(percent, row), strict=True))
        assert demo.text("#answer") == LABELS[row.argmax()].strip()
    assert demo.errors == []


def box_filtered(pixels, size):
    """Means of areas, of the middle square."""
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side].astype(np.float64)
    block = side // size
    cells = square.reshape(size, block, size, block, 3)
    return np.rint(cells.mean(axis=(1, 3)))


def test_a_larger_picture_is_cut_and_averaged(running, classifier, rng):
    demo = DemoPage(running, classifier[1].as_uri())
    picture = rng.integers(0, 256, (64, 80, 3)).astype(np.uint8)
    demo.classify(picture)
    difference = np.abs(demo.bytes_seen() - box_filtered(picture, 8))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02  # Ties.


def test_inverting_brightness(running, classifier, rng):
    demo = DemoPage(running, classifier[1].as_uri())
    picture = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    demo.classify(picture)
    with demo.next_run():
        demo.page.check("#invert")
    np.testing.assert_array_equal(demo.bytes_seen(), 255 - picture)


def test_a_dropped_picture(running, classifier, rng):
    demo = DemoPage(running, classifier[1].as_uri())
    picture = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    demo.drop("x.png", png(picture))
    np.testing.assert_array_equal(demo.bytes_seen(), picture)


def test_a_file_that_is_no_picture_is_refused_by_name(running, classifier):
    demo = DemoPage(running, classifier[1].as_uri())
    file = {"name": "song.mp3", "mimeType": "image/png", "buffer": b"no picture"}
    demo.page.set_input_files("#choose", file)
    demo.page.wait_for_selector("#failure:not([hidden])")
    assert "song.mp3 is not a picture" in demo.text("#failure")


def test_the_camera_classifies_frame_after_frame(running, classifier):
    demo = DemoPage(running, classifier[1].as_uri())
    demo.choose("camera")
    demo.page.wait_for_function("Number(document.body.dataset.runs) > 3")
    assert demo.bytes_seen().any()
    demo.page.click("#pause")
    demo.page.wait_for_timeout(200)
    runs = demo.page.get_attribute("body", "data-runs")
    demo.page.wait_for_timeout(200)
    assert demo.page.get_attribute("body", "data-runs") == runs
    demo.choose("draw")
    assert demo.page.evaluate("document.getElementById('video').srcObject") is None


def test_without_https_the_page_says_so_and_takes_photos(running, classifier):
    page = classifier[1].read_bytes()
    answer = {"http://192.0.2.1/**": lambda route: route.fulfill(
        body=page, content_type="text/html"
    )}  # fmt: skip
    demo = DemoPage(running, "http://192.0.2.1/", routes=answer)
    assert demo.state == "ready", demo.text("#failure")
    demo.choose("camera")
    assert "needs https or localhost" in demo.text("#hint")
    assert demo.page.is_visible("#photo-instead")
    assert demo.page.get_attribute("#photo-instead input", "capture") == "environment"


def test_a_page_links_litertjs_in_a_fixed_version(running, classifier, tmp_path, rng):
    page = tmp_path / "linked.html"
    tflite_export.write_demo(classifier[0], page, mean=0, std=255)
    assert page.stat().st_size < 150_000

    def answer(route):
        name, _, path = route.request.url.partition("@2.5.3/")
        folder = PACKAGES / "node_modules" / name.removeprefix(
            "https://cdn.jsdelivr.net/npm/"
        )  # fmt: skip
        file = folder / path
        kind = "application/wasm" if file.suffix == ".wasm" else "text/javascript"
        headers = {"Access-Control-Allow-Origin": "*"}
        route.fulfill(body=file.read_bytes(), content_type=kind, headers=headers)

    routes = {"https://cdn.jsdelivr.net/**": answer}
    demo = DemoPage(running, page.as_uri(), routes=routes)
    assert demo.state == "ready", demo.text("#failure")
    picture = rng.integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    demo.classify(picture[0])
    [[row]] = values_of(classifier[0], picture).values()
    assert demo.rows() == [(str(i), percent(s)) for i, s in enumerate(row)]


def test_without_a_network_a_linked_page_names_the_remedy(
    running, classifier, tmp_path
):
    page = tmp_path / "linked.html"
    tflite_export.write_demo(classifier[0], page, mean=0, std=255)
    routes = {"https://cdn.jsdelivr.net/**": lambda route: route.abort()}
    demo = DemoPage(running, page.as_uri(), routes=routes)
    assert demo.state == "failed"
    assert "cdn.jsdelivr.net" in demo.text("#failure")
    assert "--offline" in demo.text("#failure")
    demo.choose("draw")
    assert "--offline" in demo.text("#failure")
    assert demo.text("#answer") == "The network does not run"


def test_an_offline_page_asks_for_nothing(running, classifier):
    asked = []

    def refuse(route):
        asked.append(route.request.url)
        route.abort()

    routes = {"http*://**": refuse}
    demo = DemoPage(running, classifier[1].as_uri(), routes=routes)
    assert demo.state == "ready" and asked == []


def test_the_server_shows_the_page(running, classifier):
    with PageServer(classifier[1].read_bytes(), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        demo = DemoPage(running, f"http://127.0.0.1:{port}/")
        assert demo.state == "ready", demo.text("#failure")
        demo.context.close()
        server.shutdown()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_one_can_use_the_page(running, classifier, rng, size, scheme):
    demo = DemoPage(running, classifier[1].as_uri(), size, scheme)
    for mode in ("draw", "picture"):
        demo.choose(mode)
        if mode == "picture":
            demo.classify(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
        assert demo.faults(PACKAGES) == []
        assert demo.page.evaluate("document.body.scrollWidth") <= size[0]
        for target in demo.page.locator("button, label").all():
            if target.is_visible():
                box = target.bounding_box()
                assert min(box["width"], box["height"]) >= 44, target.inner_text()
    color = demo.page.evaluate(
        "getComputedStyle(document.documentElement).backgroundColor"
    )
    brightness = sum(map(int, re.findall(r"\d+", color)))
    assert brightness < 100 if scheme == "dark" else brightness > 600


def test_keys_choose_the_mode(running, classifier):
    demo = DemoPage(running, classifier[1].as_uri(), DESKTOP)
    demo.page.keyboard.press("Tab")
    demo.page.keyboard.press("ArrowLeft")
    assert demo.page.get_attribute("body", "data-mode") == "draw"


def mask_model(classes, activation):
    def build():
        inputs = layers.Input((8, 8, 3), name="image")
        x = tiny.conv_bn_relu(inputs, 8)
        x = layers.Conv2D(classes, 3, padding="same", activation=activation)(x)
        return keras.Model(inputs, x)

    return build


@pytest.mark.parametrize(
    ("classes", "activation"), [(3, "softmax"), (3, None), (1, "sigmoid")]
)
def test_a_mask_covers_what_python_computes(
    running, tmp_path, rng, classes, activation
):
    path = exported(mask_model(classes, activation), tmp_path)
    page = tmp_path / "page.html"
    tflite_export.write_demo(path, page, mean=0, std=255, offline=PACKAGES)
    demo = DemoPage(running, page.as_uri())
    picture = rng.integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    demo.classify(picture[0])
    [[scores]] = values_of(path, picture).values()
    chosen = scores.argmax(-1) if classes > 1 else np.where(scores[..., 0] > 0.5, 0, -1)
    shares = [(chosen == one).mean() for one in range(classes)]
    order = sorted(range(classes), key=lambda one: (-shares[one], one))
    assert demo.rows() == [(str(one), percent(shares[one])) for one in order]
    found = demo.page.evaluate(
        """() => {
          const mask = document.getElementById("overlay");
          const pen = mask.getContext("2d");
          return [...pen.getImageData(0, 0, mask.width, mask.height).data];
        }"""
    )
    colors = np.array(found).reshape(8, 8, 4)
    used = {tuple(color) for color in colors.reshape(-1, 4)}
    assert len(used) == len(np.unique(chosen))
    np.testing.assert_array_equal(colors[..., 3] > 0, chosen >= 0)


def detector():
    """Boxes of 4 x 4 places, [ymin, xmin, ymax, xmax], and scores of two classes."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = tiny.conv_bn_relu(inputs, 8, strides=2)
    boxes = layers.Conv2D(4, 1, activation="sigmoid")(x)
    scores = layers.Conv2D(2, 1, activation="sigmoid")(x)
    return keras.Model(
        inputs,
        [
            layers.Reshape((16, 4), name="boxes")(boxes),
            layers.Reshape((16, 2), name="scores")(scores),
        ],
    )


def corners(boxes, box_format):
    """Boxes as [left, top, right, bottom]."""
    a, b, c, d = boxes.T
    if box_format == "cxcywh":
        return np.stack([a - c / 2, b - d / 2, a + c / 2, b + d / 2], axis=1)
    return np.stack([b, a, d, c] if box_format == "yxyx" else [a, b, c, d], axis=1)


def kept_objects(boxes, scores, least):
    """(class, score) without overlaps of more than a half, the surest first."""

    def overlap(one, other):
        sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
        if (sides <= 0).any():
            return 0.0
        areas = [np.prod(box[2:] - box[:2]) for box in (one, other)]
        return np.prod(sides) / (sum(areas) - np.prod(sides))

    kept = []
    for i in np.argsort(-scores.ravel(), kind="stable"):
        place, one = divmod(int(i), scores.shape[1])
        near = [
            p for p, k in kept if k == one and overlap(boxes[place], boxes[p]) > 0.5
        ]
        if scores[place, one] >= least and not near:
            kept.append((place, one))
    return [(one, scores[place, one]) for place, one in kept]


@pytest.mark.parametrize("box_format", ["yxyx", "xyxy", "cxcywh"])
def test_boxes_are_those_that_python_keeps(running, tmp_path, rng, box_format):
    path = exported(detector, tmp_path)
    page, names = tmp_path / "page.html", ["cat", "dog"]
    tflite_export.write_demo(
        path, page, labels=names, mean=0, std=255, boxes=box_format, offline=PACKAGES
    )
    demo = DemoPage(running, page.as_uri())
    picture = rng.integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    demo.classify(picture[0])
    outputs = [x[0] for x in values_of(path, picture).values()]
    [boxes] = [corners(x, box_format) for x in outputs if x.shape[-1] == 4]
    [scores] = [x for x in outputs if x.shape[-1] == 2]
    kept = kept_objects(boxes, scores, 0.5)
    if box_format == "cxcywh":
        assert 1 < len(kept) < (scores >= 0.5).sum()
    shown = [(names[one], percent(score)) for one, score in kept]
    assert demo.rows() == shown[:12]
    assert demo.text("#answer") == f"{len(kept)} objects"
    with demo.next_run():
        demo.page.fill("#threshold", "0.95")
    assert len(demo.rows()) == len(kept_objects(boxes, scores, 0.95)) < len(kept)


@pytest.mark.parametrize("classes", [1, 4])
def test_logits_become_probabilities(running, tmp_path, rng, classes):
    def build():
        inputs = layers.Input((8, 8, 3), name="image")
        x = layers.GlobalAveragePooling2D()(tiny.conv_bn_relu(inputs, 8))
        return keras.Model(inputs, layers.Dense(classes, name="scores")(x))

    path, page = exported(build, tmp_path), tmp_path / "page.html"
    tflite_export.write_demo(path, page, mean=0, std=255, offline=PACKAGES)
    demo = DemoPage(running, page.as_uri())
    pictures = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    pictures[1] //= 8
    [scores] = values_of(path, pictures).values()
    for picture, row in zip(pictures, scores, strict=True):
        demo.classify(picture)
        powers = np.exp(row)
        shares = powers / powers.sum() if classes > 1 else powers / (1 + powers)
        assert demo.rows() == [(str(i), percent(s)) for i, s in enumerate(shares)]
        if classes == 1:
            yes = shares[0] >= 0.5
            assert demo.text("#answer") == ("0" if yes else "not 0")
            assert demo.text("#certainty") == percent(max(shares[0], 1 - shares[0]))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The file that the quickstart trains, and its page; takes a minute."""
    folder = tmp_path_factory.mktemp("digits")
    path = folder / "digits.tflite"
    command = [sys.executable, ROOT / "examples/quickstart.py", "--output", path]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    page = folder / "digits.html"
    tflite_export.write_demo(path, page, mean=0, std=255, offline=PACKAGES)
    return path, page


def arc(x, y, width, height, start, end):
    """Points of a part of an ellipse; angles in degrees, clockwise from the right."""
    angles = np.radians(np.linspace(start, end, 17))
    return [(x + width * np.cos(t), y + height * np.sin(t)) for t in angles]


# Points of lines, from 0 to 1 in the frame.
STROKES = {
    "0": [arc(0.5, 0.5, 0.24, 0.38, -90, 270)],
    "1": [[(0.36, 0.28), (0.52, 0.12), (0.52, 0.88)]],
    "2": [[*arc(0.5, 0.3, 0.22, 0.18, -170, 40), (0.28, 0.86), (0.75, 0.86)]],
    "3": [[*arc(0.45, 0.3, 0.22, 0.18, -140, 80),
           *arc(0.45, 0.68, 0.25, 0.2, -80, 140)]],
    "4": [[(0.5, 0.1), (0.25, 0.6), (0.78, 0.6)], [(0.6, 0.4), (0.6, 0.9)]],
    "5": [[(0.72, 0.13), (0.35, 0.13), (0.32, 0.45),
           *arc(0.47, 0.65, 0.24, 0.22, -110, 140)]],
    "6": [[(0.6, 0.1), (0.42, 0.28), (0.32, 0.5), *arc(0.5, 0.68, 0.2, 0.2, 180, 540)]],
    "7": [[(0.25, 0.15), (0.75, 0.15), (0.45, 0.9)]],
    "8": [arc(0.5, 0.3, 0.18, 0.18, 90, 450), arc(0.5, 0.69, 0.21, 0.2, -90, 270)],
    "9": [[*arc(0.5, 0.3, 0.2, 0.19, 0, 360), (0.68, 0.6), (0.6, 0.9)]],
}  # fmt: skip


@pytest.mark.slow
def test_drawn_digits_get_their_class(running, digits):
    demo = DemoPage(running, digits[1].as_uri())
    assert demo.page.get_attribute("body", "data-mode") == "draw"
    for digit, strokes in STROKES.items():
        demo.draw(*strokes)
        assert demo.text("#answer") == digit
        demo.page.click("#clear")
        assert demo.text("#answer") == "No picture yet"


@pytest.mark.slow
def test_899_digits_have_the_class_that_python_finds(running, digits):
    sys.path.append(str(ROOT / "examples"))
    from datasets import load

    images = load("digits")
    pictures = np.rint(images.x_test * 255 / images.maximum).astype(np.uint8)
    [scores] = values_of(digits[0], pictures).values()
    assert len(scores) == 899
    demo = DemoPage(running, digits[1].as_uri())
    for picture, row in zip(pictures, scores, strict=True):
        demo.classify(picture[..., 0])
        assert demo.text("#answer") == str(row.argmax())
    assert (scores.argmax(-1) == images.y_test).mean() > 0.97
