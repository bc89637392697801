"""Calls of TensorFlow's functions of images and of layers that need hints."""

from __future__ import annotations

import tensorflow as tf

from .calls import Call
from .hints_shared import BOXES, on, values
from .operands import IDS, IMAGE, RGB, SEQUENCE, VECTOR, VOLUME, Operand

UNIT = IMAGE.within("unit")
LABEL = Operand((), "ids")
MATRIX = SEQUENCE.of(4, 4)
LARGE = RGB.of(12, 12, 3)
SAME = [1, 1, 1, 1]

IMAGES: dict[str, list[Call]] = {
    "tf.image.resize": on(
        IMAGE,
        **{
            method: lambda f, x, method=method: f(x, (4, 9), method)
            for method in (
                "bilinear nearest bicubic area lanczos3 lanczos5 gaussian mitchellcubic"
            ).split()
        },
        antialias=lambda f, x: f(x, (4, 9), antialias=True),
        preserve_aspect_ratio=lambda f, x: f(x, (4, 9), preserve_aspect_ratio=True),
        double=lambda f, x: f(x, (12, 12)),
    ),
    "tf.image.adjust_contrast": on(RGB, image=lambda f, x: f(x, 2.0)),
    "tf.image.adjust_hue": on(RGB, image=lambda f, x: f(x, 0.2)),
    "tf.image.adjust_saturation": on(RGB, image=lambda f, x: f(x, 0.5)),
    "tf.image.central_crop": on(IMAGE, half=lambda f, x: f(x, 0.5)),
    "tf.image.crop_and_resize": on(
        IMAGE, boxes=lambda f, x: f(x, [[0.1, 0.2, 0.8, 0.9]], [0], (4, 4))
    ),
    "tf.image.crop_to_bounding_box": on(IMAGE, box=lambda f, x: f(x, 1, 2, 4, 3)),
    "tf.image.pad_to_bounding_box": on(IMAGE, box=lambda f, x: f(x, 1, 2, 9, 10)),
    "tf.image.draw_bounding_boxes": on(
        (RGB, BOXES), boxes=lambda f, x, y: f(x, y, [[1.0, 0.0, 0.0]])
    ),
    "tf.image.extract_glimpse": on(
        IMAGE, center=lambda f, x: f(x, (3, 3), tf.zeros((16, 2)))
    ),
    "tf.image.extract_patches": on(
        IMAGE, patches=lambda f, x: f(x, [1, 2, 2, 1], [1, 2, 2, 1], SAME, "VALID")
    ),
    "tf.image.grayscale_to_rgb": on(RGB.of(6, 6, 1), image=lambda f, x: f(x)),
    "tf.image.resize_with_crop_or_pad": on(IMAGE, image=lambda f, x: f(x, 4, 9)),
    "tf.image.resize_with_pad": on(IMAGE, image=lambda f, x: f(x, 4, 9)),
    "tf.image.ssim": on((LARGE, LARGE), images=lambda f, x, y: f(x, y, 1.0)),
    "tf.image.ssim_multiscale": on(
        (LARGE, LARGE),
        images=lambda f, x, y: f(x, y, 1.0, power_factors=(0.5, 0.5), filter_size=3),
    ),
    "tf.image.psnr": on((RGB, RGB), images=lambda f, x, y: f(x, y, 1.0)),
    "tf.image.combined_non_max_suppression": on(
        (Operand((6, 1, 4), "unit"), BOXES),
        boxes=lambda f, x, y: f(x, y, 3, 4),
    ),
    "tf.image.non_max_suppression_padded": on(
        (BOXES, Operand((6,), "unit")),
        boxes=lambda f, x, y: f(x, y, 3, pad_to_max_output_size=True),
    ),
    **{
        f"tf.image.{name}": on(RGB, image=lambda f, x: f(x))
        for name in (
            "rgb_to_yiq rgb_to_yuv yiq_to_rgb yuv_to_rgb per_image_standardization "
            "sobel_edges image_gradients"
        ).split()
    },
    **{
        f"tf.image.{name}": on(IMAGE, image=lambda f, x: f(x))
        for name in "flip_left_right flip_up_down rot90 transpose".split()
    },
    "tf.image.convert_image_dtype": on(RGB, same=lambda f, x: f(x, "float32")),
}

CONVOLUTIONS: dict[str, list[Call]] = {
    "tf.nn.bias_add": on(IMAGE, constant=lambda f, x: f(x, values(8))),
    "tf.nn.conv1d": on(SEQUENCE, kernel=lambda f, x: f(x, values(3, 8, 4), 1, "SAME")),
    "tf.nn.conv2d": on(IMAGE, kernel=lambda f, x: f(x, values(3, 3, 8, 4), 2, "SAME")),
    "tf.nn.conv3d": on(
        VOLUME, kernel=lambda f, x: f(x, values(2, 2, 2, 8, 4), [1] * 5, "SAME")
    ),
    "tf.nn.convolution": on(
        IMAGE,
        kernel=lambda f, x: f(x, values(3, 3, 8, 4), padding="SAME"),
        strides=lambda f, x: f(x, values(3, 3, 8, 4), [2, 2], "VALID"),
    ),
    "tf.nn.depthwise_conv2d": on(
        IMAGE, kernel=lambda f, x: f(x, values(3, 3, 8, 1), SAME, "SAME")
    ),
    "tf.nn.separable_conv2d": on(
        IMAGE,
        kernels=lambda f, x: f(x, values(3, 3, 8, 1), values(1, 1, 8, 4), SAME, "SAME"),
    ),
    "tf.nn.atrous_conv2d": on(
        IMAGE, kernel=lambda f, x: f(x, values(3, 3, 8, 4), 2, "SAME")
    ),
    "tf.nn.conv2d_transpose": on(
        IMAGE,
        kernel=lambda f, x: f(
            x, values(2, 2, 4, 8), tf.stack([tf.shape(x)[0], 12, 12, 4]), 2
        ),
    ),
    "tf.nn.dilation2d": on(
        IMAGE,
        kernel=lambda f, x: f(x, values(3, 3, 8), SAME, "SAME", "NHWC", SAME),
    ),
    "tf.nn.erosion2d": on(
        IMAGE,
        kernel=lambda f, x: f(x, values(3, 3, 8), SAME, "SAME", "NHWC", SAME),
    ),
    **{
        f"tf.nn.{name}": on(
            IMAGE,
            valid=lambda f, x: f(x, 2, 2, "VALID"),
            same=lambda f, x: f(x, 3, 2, "SAME"),
        )
        + on(SEQUENCE, sequence=lambda f, x: f(x, 2, 2, "VALID"))
        + on(VOLUME, volume=lambda f, x: f(x, 2, 2, "VALID"))
        for name in ("max_pool", "avg_pool")
    },
    "tf.nn.pool": on(
        IMAGE,
        max=lambda f, x: f(x, [2, 2], "MAX", padding="SAME"),
        average=lambda f, x: f(x, [2, 2], "AVG", [2, 2]),
    ),
    "tf.nn.fractional_max_pool": on(IMAGE, image=lambda f, x: f(x, 1.5, seed=1)),
    "tf.nn.max_pool_with_argmax": on(IMAGE, image=lambda f, x: f(x, 2, 2, "VALID")),
    "tf.nn.embedding_lookup": on(IDS, table=lambda f, x: f(values(8, 4), x)),
    "tf.nn.batch_normalization": on(
        IMAGE,
        constants=lambda f, x: f(
            x, values(8), 1.5 + values(8), values(8), values(8) + 2, 1e-3
        ),
    ),
    "tf.nn.moments": on(IMAGE, image=lambda f, x: f(x, [1, 2], keepdims=True)),
    "tf.nn.weighted_moments": on(
        (IMAGE, UNIT), image=lambda f, x, y: f(x, [1, 2], y, keepdims=True)
    ),
    "tf.nn.sufficient_statistics": on(IMAGE, image=lambda f, x: f(x, [1, 2])[1:3]),
    "tf.nn.normalize_moments": on(
        (VECTOR, VECTOR), vectors=lambda f, x, y: f(4.0, x, y, None)
    ),
    "tf.nn.sigmoid_cross_entropy_with_logits": on(
        (UNIT, IMAGE), image=lambda f, x, y: f(labels=x, logits=y)
    ),
    "tf.nn.sparse_softmax_cross_entropy_with_logits": on(
        (LABEL, VECTOR), vector=lambda f, x, y: f(labels=x, logits=y)
    ),
    "tf.nn.ctc_greedy_decoder": on(
        SEQUENCE, sequence=lambda f, x: f(tf.transpose(x, [1, 0, 2]), [6] * 16)
    ),
    "tf.nn.gelu": on(
        IMAGE, exact=lambda f, x: f(x), approximate=lambda f, x: f(x, True)
    ),
    "tf.nn.local_response_normalization": on(IMAGE, image=lambda f, x: f(x)),
    "tf.nn.l2_normalize": on(
        IMAGE, channels=lambda f, x: f(x, -1), image=lambda f, x: f(x, [1, 2, 3])
    )
    + on(VECTOR, vector=lambda f, x: f(x, 1)),
    "tf.nn.softmax": on(
        IMAGE, channels=lambda f, x: f(x), rows=lambda f, x: f(x, axis=1)
    )
    + on(VECTOR, vector=lambda f, x: f(x)),
}

HINTS = {**IMAGES, **CONVOLUTIONS}
