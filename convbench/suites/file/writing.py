"""Write a suite as YAML, one layer on each line. What all layers share goes into `defaults`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any

from convbench.problem.layer import Layer, Padding, Pair
from convbench.suites.suite import Suite

SCHEMA_LINE = "# yaml-language-server: $schema=suite.schema.json"
"""First line of a suite, which tells editors its schema."""

MAX_LAYERS = 12_000
"""Most layers in a suite that is written. A longer file could have more keys and values than
MAX_VALUES of places.py, and could not be read again."""

SHARED = ("batch_size", "dtype", "use_bias")
"""Keys that go into `defaults` if all layers have the same value."""

_DEFAULTS = {f.name: f.default for f in fields(Layer) if f.default is not MISSING}


def write_suite(suite: Suite, head: str = "", remarks: Mapping[str, str] | None = None) -> str:
    """Return the text of a suite file.

    `head` becomes comments at the top, `remarks` comments on layers, by name. Own code, rules and
    an environment are not written: a suite that has them was read from a file.
    """
    lines = [SCHEMA_LINE, *(f"# {_printable(line)}".rstrip() for line in head.splitlines())]
    lines.append(f"name: {_flow(suite.name)}")
    if suite.description:
        lines.append(f"description: {_flow(suite.description)}")
    if suite.provenance is not None:
        lines += ["", "provenance:", *_block(asdict(suite.provenance))]
    defaults = _shared(suite.layers)
    if defaults:
        lines += ["", "defaults:", *_block(defaults)]
    lines += ["", "layers:"]
    for layer in suite.layers:
        remark = (remarks or {}).get(layer.name)
        entry = _flow(_entry(layer, defaults))
        lines.append(f"  - {entry}" + (f"  # {_printable(remark)}" if remark else ""))
    lines += ["", f"implementations: {_flow(list(suite.implementations))}"]
    lines.append(f"passes: {_flow([str(pass_) for pass_ in suite.passes])}")
    lines.append(f"threads: {suite.threads}")
    if suite.effort != "standard":
        lines.append(f"effort: {suite.effort}")
    return "\n".join(lines) + "\n"


def _shared(layers: tuple[Layer, ...]) -> dict[str, Any]:
    first = layers[0]
    return {
        key: getattr(first, key)
        for key in SHARED
        if all(getattr(layer, key) == getattr(first, key) for layer in layers)
    }


def _entry(layer: Layer, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a layer whose values are neither defaults of the file nor of Layer."""
    values = {
        "name": layer.name,
        "input_shape": list(layer.input_shape),
        "filters": layer.filters,
        "kernel_size": _pair(layer.kernel_size),
        "strides": _pair(layer.strides),
        "padding": _padding(layer.padding),
        "dilation_rate": _pair(layer.dilation_rate),
        "groups": layer.groups,
        "use_bias": layer.use_bias,
        "batch_size": layer.batch_size,
        "dtype": layer.dtype,
        "count": layer.count,
    }
    given = {key: _plain(value) for key, value in {**_DEFAULTS, **defaults}.items()}
    return {key: value for key, value in values.items() if given.get(key, MISSING) != value}


def _plain(default: Any) -> Any:
    return _pair(default) if isinstance(default, tuple) else default


def _pair(pair: Pair) -> int | list[int]:
    return pair[0] if pair[0] == pair[1] else list(pair)


def _padding(padding: Padding) -> str | int | list[list[int]]:
    if isinstance(padding, str):
        return padding
    sizes = {pad for pads in padding for pad in pads}
    return sizes.pop() if len(sizes) == 1 else [list(pads) for pads in padding]


def _block(values: Mapping[str, Any]) -> list[str]:
    """Write one line for each key, and for each item of a list. Leave out empty lists."""
    lines = []
    for key, value in values.items():
        if isinstance(value, (list, tuple)):
            if value:
                lines += [f"  {key}:", *(f"    - {_flow(item)}" for item in value)]
        else:
            lines.append(f"  {key}: {_flow(value)}")
    return lines


def _flow(value: Any) -> str:
    """Write a value as one line of YAML, quoted where it must be."""
    import yaml

    text = yaml.safe_dump(
        value, default_flow_style=True, width=2**31, sort_keys=False, allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _printable(words: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in words)
