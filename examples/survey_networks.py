"""The networks of `network_survey.py`: those of other packages, smallest variants.

A package is imported when one of its networks is built.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

CLASSES = 10


@dataclasses.dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        name: Its name, unique in the survey.
        family: The family of architectures it belongs to.
        package: The package that builds it.
        build: Returns the float model.
        range: Smallest and largest input value.
    """

    name: str
    family: str
    package: str
    build: Callable[[], Any]
    range: tuple[float, float] = (-1.0, 1.0)


def _kecam(family: str, module: str, name: str, size: int, **settings: Any) -> Network:
    """Returns a network of keras-cv-attention-models, which builds tf_keras models."""

    def build() -> Any:
        package = importlib.import_module("keras_cv_attention_models")
        return getattr(getattr(package, module), name)(
            input_shape=(size, size, 3),
            num_classes=CLASSES,
            pretrained=None,
            **settings,
        )

    return Network(name, family, "keras-cv-attention-models", build)


def _classifier(family: str, module: str, name: str, size: int = 64) -> Network:
    """Returns a classifier of keras-cv-attention-models that puts out logits."""
    return _kecam(family, module, name, size, classifier_activation=None)


def _hub(
    name: str,
    family: str,
    backbone: str,
    size: int = 64,
    *,
    shape: str = "image_shape",
    **settings: Any,
) -> Network:
    """Returns a classifier of KerasHub.

    Args:
        name: Its name in the survey.
        family: The family of architectures.
        backbone: The class of its backbone in `keras_hub.models`, without "Backbone".
        size: Height and width of the images.
        shape: The backbone's argument for the shape of an image.
        settings: Other settings of the backbone.
    """

    def build() -> Any:
        models = importlib.import_module("keras_hub").models
        body = getattr(models, f"{backbone}Backbone")(
            **{shape: (size, size, 3)}, **settings
        )
        classifier = getattr(models, f"{backbone}ImageClassifier")
        return classifier(backbone=body, num_classes=CLASSES, preprocessor=None)

    return Network(name, family, "keras-hub", build)


def _deeplab() -> Any:
    """Builds DeepLabV3+ of KerasHub on a ResNet of basic blocks."""
    models = importlib.import_module("keras_hub").models
    encoder = models.ResNetBackbone(image_shape=(96, 96, 3), **_RESNET18)
    backbone = models.DeepLabV3Backbone(
        image_encoder=encoder,
        spatial_pyramid_pooling_key="P5",
        low_level_feature_key="P2",
        upsampling_size=8,
        dilation_rates=[1, 2, 3],
        image_shape=(96, 96, 3),
    )
    return models.DeepLabV3ImageSegmenter(backbone=backbone, num_classes=CLASSES)


def _segformer() -> Any:
    """Builds SegFormer of KerasHub on MiT-B0."""
    models = importlib.import_module("keras_hub").models
    encoder = models.MiTBackbone(image_shape=(64, 64, 3), **_MIT_B0)
    backbone = models.SegFormerBackbone(image_encoder=encoder, projection_filters=64)
    return models.SegFormerImageSegmenter(backbone=backbone, num_classes=CLASSES)


def _basnet() -> Any:
    """Builds BASNet of KerasHub on a ResNet of basic blocks."""
    models = importlib.import_module("keras_hub").models
    encoder = models.ResNetBackbone(**_RESNET18)
    backbone = models.BASNetBackbone(
        image_encoder=encoder, num_classes=1, image_shape=(64, 64, 3)
    )
    return models.BASNetImageSegmenter(backbone)


def _application(
    library: str, family: str, name: str, size: int = 64, **settings: Any
) -> Network:
    """Returns a network of `keras.applications` of Keras 3 or tf_keras."""

    def build() -> Any:
        applications = importlib.import_module(library).applications
        return getattr(applications, name)(
            input_shape=(size, size, 3),
            weights=None,
            classes=CLASSES,
            classifier_activation=None,
            **settings,
        )

    other = "Keras 3" if library == "keras" else library
    return Network(f"{name} ({other})", family, f"{library}.applications", build)


_RESNET18 = {
    "input_conv_filters": [64],
    "input_conv_kernel_sizes": [7],
    "stackwise_num_filters": [64, 128, 256, 512],
    "stackwise_num_blocks": [2, 2, 2, 2],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "basic_block",
}
_RESNET50_VD = {
    "input_conv_filters": [32, 32, 64],
    "input_conv_kernel_sizes": [3, 3, 3],
    "stackwise_num_filters": [64, 128, 256, 512],
    "stackwise_num_blocks": [3, 4, 6, 3],
    "stackwise_num_strides": [1, 2, 2, 2],
    "block_type": "bottleneck_block_vd",
}
_MIT_B0 = {
    "layerwise_depths": [2, 2, 2, 2],
    "num_layers": 4,
    "layerwise_num_heads": [1, 2, 5, 8],
    "layerwise_sr_ratios": [8, 4, 2, 1],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3, 3, 3],
    "layerwise_strides": [4, 2, 2, 2],
    "hidden_dims": [32, 64, 160, 256],
}
_EFFICIENTNET_V2 = {
    "stackwise_width_coefficients": [1.0] * 6,
    "stackwise_depth_coefficients": [1.0] * 6,
    "stackwise_kernel_sizes": [3] * 6,
    "stackwise_num_repeats": [1, 2, 2, 3, 5, 8],
    "stackwise_input_filters": [32, 16, 32, 48, 96, 112],
    "stackwise_output_filters": [16, 32, 48, 96, 112, 192],
    "stackwise_expansion_ratios": [1, 4, 4, 4, 6, 6],
    "stackwise_squeeze_and_excite_ratios": [0, 0, 0, 0.25, 0.25, 0.25],
    "stackwise_strides": [1, 2, 2, 2, 1, 2],
    "stackwise_block_types": ["fused"] * 3 + ["unfused"] * 3,
    "stackwise_force_input_filters": [0] * 6,
    "stackwise_nores_option": [False] * 6,
}
_MOBILENET_V3 = {
    "stackwise_expansion": [[40, 56], [64, 144, 144], [72, 72], [144, 288, 288]],
    "stackwise_num_blocks": [2, 3, 2, 3],
    "stackwise_num_filters": [[16, 16], [24, 24, 24], [24, 24], [48, 48, 48]],
    "stackwise_kernel_size": [[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
    "stackwise_se_ratio": [[None] * 2, [0.25] * 3, [0.3] * 2, [0.3, 0.25, 0.25]],
    "stackwise_activation": [["relu"] * 2]
    + [["hard_swish"] * count for count in (3, 2, 3)],
    "stackwise_padding": [[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
    "output_num_filters": 1024,
    "last_layer_filter": 288,
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "squeeze_and_excite": 0.5,
}
_CSP_DARKNET = {
    "stem_filters": 16,
    "stem_kernel_size": 3,
    "stem_strides": 1,
    "stem_padding": "same",
    "stackwise_depth": [1, 2, 2, 2],
    "stackwise_strides": [2, 2, 2, 2],
    "stackwise_num_filters": [32, 64, 128, 256],
    "stage_type": "csp",
    "block_type": "dark_block",
    "bottle_ratio": [0.5, 1.0],
    "block_ratio": [1.0, 0.5],
    "expand_ratio": [2.0, 1.0],
    "down_growth": True,
}
_CSP_RESNET = {
    "stem_filters": 32,
    "stem_kernel_size": 7,
    "stem_strides": 4,
    "stem_pooling": "max",
    "stackwise_depth": [2, 2, 2],
    "stackwise_strides": [1, 2, 2],
    "stackwise_num_filters": [64, 128, 256],
    "stage_type": "csp",
    "block_type": "bottleneck_block",
    "bottle_ratio": [0.5],
    "block_ratio": [1.0],
    "expand_ratio": [2.0],
    "cross_linear": True,
}
_HGNET_V2 = {
    "depths": [1, 1, 3, 1],
    "embedding_size": 32,
    "hidden_sizes": [64, 256, 512, 1024],
    "stem_channels": [3, 16, 16],
    "hidden_act": "relu",
    "use_learnable_affine_block": True,
    "stackwise_stage_filters": [
        (16, 16, 64, 1, 3, 3),
        (64, 32, 256, 1, 3, 3),
        (256, 64, 512, 2, 3, 5),
        (512, 128, 1024, 1, 3, 5),
    ],
    "apply_downsample": [False, True, True, True],
    "use_lightweight_conv_block": [False, False, True, True],
}
_VIT = {
    "patch_size": (16, 16),
    "num_layers": 4,
    "num_heads": 3,
    "hidden_dim": 192,
    "mlp_dim": 768,
}

_CONVOLUTIONAL = [
    _classifier("VanillaNet", "vanillanet", "VanillaNet5"),
    _classifier("LCNet", "lcnet", "LCNet050"),
    _classifier("GhostNet", "ghostnet", "GhostNet_050"),
    _classifier("GhostNet", "ghostnet", "GhostNetV2_100"),
    _classifier("MobileNetV3", "mobilenetv3", "MobileNetV3Small050"),
    _classifier("TinyNet", "tinynet", "TinyNetE"),
    _classifier("FBNetV3", "fbnetv3", "FBNetV3B"),
    _classifier("RepViT", "repvit", "RepViT_M09"),
    _classifier("FasterNet", "fasternet", "FasterNetT0"),
    _classifier("FasterNet", "fasternet", "FasterNetT2"),
    _classifier("EfficientNet", "efficientnet", "EfficientNetV1B0"),
    _classifier("EfficientNet", "efficientnet", "EfficientNetV1Lite0"),
    _classifier("EfficientNet", "efficientnet", "EfficientNetEdgeTPUSmall"),
    _classifier("EfficientNet", "efficientnet", "EfficientNetV2B0"),
    _classifier("EfficientNet", "efficientnet", "EfficientNetV2T_GC"),
    _classifier("CSPNeXt", "cspnext", "CSPNeXtTiny"),
    _classifier("RegNet", "regnet", "RegNetY032"),
    _classifier("RegNet", "regnet", "RegNetZB16"),
    _classifier("RegNet", "regnet", "RegNetZC16_EVO"),
    _classifier("ResNet", "resnet_deep", "ResNet50D"),
    _classifier("ResNet", "resnet_quad", "ResNet51Q"),
    _classifier("ResNeXt", "resnext", "ResNeXt50"),
    _classifier("ResNeSt", "resnest", "ResNest50"),
    _classifier("CoTNet", "cotnet", "CotNetSE50D"),
    _classifier("NFNet", "nfnets", "NFNetL0"),
    _classifier("NFNet", "nfnets", "ECA_NFNetL0"),
    _classifier("InceptionNeXt", "inceptionnext", "InceptionNeXtTiny"),
    _classifier("ConvNeXt", "convnext", "ConvNeXtV2Atto"),
    _classifier("ConvNeXt", "convnext", "ConvNeXtTiny"),
    _classifier("HorNet", "hornet", "HorNetTiny"),
    _classifier("MogaNet", "moganet", "MogaNetXtiny"),
    _classifier("ConvFormer", "caformer", "ConvFormerS18"),
    _classifier("FastViT", "fastvit", "FastViT_T8"),
    _classifier("YOLOv8", "yolov8", "YOLOV8_N_CLS"),
]
_DETECTORS = [
    _kecam("YOLOX", "yolox", "YOLOXNano", 64),
    _kecam("YOLOv7", "yolov7", "YOLOV7_Tiny", 64),
    _kecam("YOLOv8", "yolov8", "YOLOV8_N", 64),
    _kecam("YOLO-NAS", "yolo_nas", "YOLO_NAS_S", 64),
    _kecam("YOLOR", "yolor", "YOLOR_CSP", 64),
    _kecam("EfficientDet", "efficientdet", "EfficientDetLite0", 128),
]
_MIXERS = [
    _classifier("MLP-Mixer", "mlp_mixer", "MLPMixerS32"),
    _classifier("ResMLP", "res_mlp", "ResMLP12"),
    _classifier("gMLP", "gated_mlp", "GMLPTiny16"),
    _classifier("Wave-MLP", "wave_mlp", "WaveMLP_T"),
]
_ATTENTION = [
    _classifier("BoTNet", "botnet", "BotNextECA26T"),
    _classifier("HaloNet", "halonet", "HaloNextECA26T"),
    _classifier("LeViT", "levit", "LeViT128S"),
    _classifier("EfficientFormer", "efficientformer", "EfficientFormerL1"),
    _classifier("EfficientFormer", "efficientformer", "EfficientFormerV2S0"),
    _classifier("EfficientViT", "efficientvit_b", "EfficientViT_B0"),
    _classifier("EfficientViT", "efficientvit_m", "EfficientViT_M0"),
    _classifier("MobileViT", "mobilevit", "MobileViT_XXS"),
    _classifier("MobileViT", "mobilevit", "MobileViT_V2_050"),
    _classifier("EdgeNeXt", "edgenext", "EdgeNeXt_XX_Small"),
    _classifier("CoaT", "coat", "CoaTLiteTiny"),
    _classifier("CMT", "cmt", "CMTTiny"),
    _classifier("PVT", "pvt", "PVT_V2B0"),
    _classifier("TinyViT", "tinyvit", "TinyViT_5M", 96),
    _classifier("UniFormer", "uniformer", "UniformerSmall32"),
    _classifier("GCViT", "gcvit", "GCViT_XXTiny"),
    _classifier("NAT", "nat", "NAT_Mini", 96),
    _classifier("DaViT", "davit", "DaViT_T"),
    _classifier("Swin", "swin_transformer_v2", "SwinTransformerV2Tiny_window8"),
    _classifier("ViT", "vit", "ViTTinyPatch16"),
    _classifier("CoAtNet", "coatnet", "CoAtNetT"),
    _classifier("iFormer", "iformer", "IFormerSmall"),
    _classifier("VOLO", "volo", "VOLO_d1"),
]
_KERAS_HUB = [
    _hub("ResNet18 (hub)", "ResNet", "ResNet", **_RESNET18),
    _hub("ResNet18V2 (hub)", "ResNet", "ResNet", use_pre_activation=True, **_RESNET18),
    _hub("ResNet50-vd (hub)", "ResNet", "ResNet", **_RESNET50_VD),
    _hub(
        "DenseNet (hub)",
        "DenseNet",
        "DenseNet",
        stackwise_num_repeats=[2, 4, 6, 4],
    ),
    _hub("MobileNetV3 (hub)", "MobileNetV3", "MobileNet", **_MOBILENET_V3),
    _hub(
        "EfficientNetV2 (hub)",
        "EfficientNet",
        "EfficientNet",
        shape="input_shape",
        **_EFFICIENTNET_V2,
    ),
    _hub("CSPDarkNet (hub)", "CSPNet", "CSPNet", **_CSP_DARKNET),
    _hub("CSPResNet (hub)", "CSPNet", "CSPNet", **_CSP_RESNET),
    _hub(
        "VGG (hub)",
        "VGG",
        "VGG",
        stackwise_num_repeats=[2, 2, 3],
        stackwise_num_filters=[32, 64, 128],
    ),
    _hub(
        "Xception (hub)",
        "Xception",
        "Xception",
        stackwise_conv_filters=[[32, 64], [64, 128], [256, 256]],
        stackwise_pooling=[True, True, False],
    ),
    _hub("HGNetV2 (hub)", "HGNetV2", "HGNetV2", **_HGNET_V2),
    _hub("MiT-B0 (hub)", "SegFormer", "MiT", **_MIT_B0),
    _hub("ViT (hub)", "ViT", "ViT", **_VIT),
    _hub(
        "Swin (hub)",
        "Swin",
        "SwinTransformer",
        embed_dim=48,
        depths=(2, 2),
        num_heads=(3, 6),
        window_size=4,
    ),
    Network("DeepLabV3+ (hub)", "DeepLab", "keras-hub", _deeplab),
    Network("SegFormer (hub)", "SegFormer", "keras-hub", _segformer),
    Network("BASNet (hub)", "BASNet", "keras-hub", _basnet),
]
_APPLICATIONS = [
    _application("keras", "NASNet", "NASNetMobile"),
    _application("keras", "ConvNeXt", "ConvNeXtTiny"),
    _application("tf_keras", "RegNet", "RegNetX002"),
    _application("tf_keras", "ResNet-RS", "ResNetRS50"),
]
NETWORKS = {
    network.name: network
    for network in (
        *_CONVOLUTIONAL,
        *_DETECTORS,
        *_MIXERS,
        *_KERAS_HUB,
        *_APPLICATIONS,
        *_ATTENTION,
    )
}
