"""The part of ComfyUI that a custom node sees (node API V3, `comfy_api.latest`): enough to load one and call it."""

import sys
from dataclasses import dataclass, field
from io import BytesIO
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Interrupted(Exception):
    """What ComfyUI raises in a node when the user stops the workflow."""


@dataclass(frozen=True)
class Input:
    """One input of a schema: its id and what else is said about it."""

    id: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Schema:
    """What `define_schema` returns."""

    node_id: str
    display_name: str
    category: str
    description: str
    inputs: list[Input]
    outputs: list[Any]


@dataclass
class Comfy:
    """What a workflow does to a node: interrupts it at the next look if `interrupted`; `progress` is what it shows."""

    interrupted: bool = False
    progress: list[tuple[float, float]] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make `comfy` and `comfy_api` importable for one test."""
        modules = {
            name: ModuleType(name) for name in ("comfy", "comfy.model_management", "comfy_api", "comfy_api.latest")
        }
        modules["comfy.model_management"].__dict__["throw_exception_if_processing_interrupted"] = self._look
        modules["comfy_api.latest"].__dict__.update(
            ComfyAPI=lambda: SimpleNamespace(execution=SimpleNamespace(set_progress=self._set_progress)),
            ComfyExtension=object,
            Input=SimpleNamespace(Image=Any),
            InputImpl=SimpleNamespace(VideoFromFile=BytesIO.getvalue),
            io=SimpleNamespace(
                ComfyNode=object,
                Schema=Schema,
                NodeOutput=lambda *values: values,
                **{kind: _kind(kind) for kind in ("Image", "String", "Int", "Float", "Combo", "Boolean", "Video")},
            ),
        )
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def _look(self) -> None:
        if self.interrupted:
            raise Interrupted

    async def _set_progress(self, value: float, max_value: float) -> None:
        self.progress.append((value, max_value))


def _kind(kind: str) -> SimpleNamespace:
    return SimpleNamespace(
        Input=lambda name, **options: Input(name, options), Output=lambda **options: (kind.upper(), options)
    )
