"""Writes `pipeline/safety/nsfwjs_mobilenet_v2.safetensors` from the npm package nsfwjs 4.3.0.

    npm pack nsfwjs@4.3.0 && tar xzf nsfwjs-4.3.0.tgz && python -m tests.harness.nsfwjs_weights package

node reads the package's two modules: Keras' layout as JSON, and the weights in base64, one byte each.
"""

import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from pipeline.safety.bundled import WEIGHTS

_READ = "const [m, w] = process.argv.slice(1).map(f => require(f)); console.log(JSON.stringify([m.weightsManifest, w]))"
_NORMALISATION = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def layers() -> Iterator[tuple[str, str, str]]:
    """Keras' names of a convolution and its normalisation, and transformers' name of the pair."""
    yield "Conv1", "bn_Conv1", "mobilenet_v2.conv_stem.first_conv"
    yield "expanded_conv_depthwise", "expanded_conv_depthwise_BN", "mobilenet_v2.conv_stem.conv_3x3"
    yield "expanded_conv_project", "expanded_conv_project_BN", "mobilenet_v2.conv_stem.reduce_1x1"
    for block in range(1, 17):
        for keras, ours in (("expand", "expand_1x1"), ("depthwise", "conv_3x3"), ("project", "reduce_1x1")):
            name = f"block_{block}_{keras}"
            yield name, f"{name}_BN", f"mobilenet_v2.layer.{block - 1}.{ours}"
    yield "Conv_1", "Conv_1_bn", "mobilenet_v2.conv_1x1"


def names() -> Iterator[tuple[str, str, tuple[int, ...] | None]]:
    """Keras' name of a weight, transformers', and the order of its axes."""
    for convolution, normalisation, ours in layers():
        depthwise = convolution.endswith("depthwise")
        kernel, axes = ("depthwise_kernel", (2, 3, 0, 1)) if depthwise else ("kernel", (3, 2, 0, 1))
        yield f"{convolution}/{kernel}", f"{ours}.convolution.weight", axes
        for keras, part in _NORMALISATION.items():
            yield f"{normalisation}/{keras}", f"{ours}.normalization.{part}", None
    for number, place in ((1, 0), (2, 2), (3, 4)):
        yield f"dense_{number}/kernel", f"classifier.{place}.weight", (1, 0)
        yield f"dense_{number}/bias", f"classifier.{place}.bias", None


def main(package: Path) -> None:
    folder = package.resolve() / "dist/models/mobilenet_v2"
    files = [str(folder / name) for name in ("model.min.js", "group1-shard1of1.min.js")]
    read = subprocess.run(["node", "-e", _READ, *files], capture_output=True, text=True, check=True)
    [manifest], encoded = json.loads(read.stdout)
    content, offset = b64decode(encoded), 0
    published: dict[str, tuple[Any, list[float]]] = {}
    for entry in manifest["weights"]:
        count = prod(entry["shape"])
        values = np.frombuffer(content, np.uint8, count, offset).reshape(entry["shape"])
        published[entry["name"]] = values, [entry["quantization"]["min"], entry["quantization"]["scale"]]
        offset += count
    assert offset == len(content)
    tensors, ranges = {}, {}
    for keras, ours, axes in names():
        values, ranges[ours] = published.pop(keras)
        tensors[ours] = torch.from_numpy(np.ascontiguousarray(values.transpose(axes) if axes else values).copy())
    assert not published, sorted(published)
    save_file(
        tensors, WEIGHTS, {"source": "nsfwjs 4.3.0 (MIT), dist/models/mobilenet_v2", "ranges": json.dumps(ranges)}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
