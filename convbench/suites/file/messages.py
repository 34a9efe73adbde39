"""Word a problem of a file: what was found, what was expected, and what may have been meant."""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import get_close_matches

import yaml

from convbench.problem.layer import Pass
from convbench.suites.file.document import MAX_INTEGER, Keys, Kind
from convbench.suites.suite import DEFAULT_IMPLEMENTATIONS, FASTEST_KERAS

EXPECTED = {
    "suite": "a mapping of keys such as layers and implementations",
    "rules file": "a mapping with the key gate, a list of rules",
    "name": "text without / and line breaks, of at most 100 characters",
    "layers name": "text without line breaks",
    "description": "text",
    "defaults": "a mapping of layer keys, such as {batch_size: 32}",
    "layers": "a list with at least one layer",
    "layers[]": "a mapping such as {input_shape: [28, 28, 1], filters: 8, kernel_size: 3}",
    "implementations": f"a list of names, such as [{', '.join(DEFAULT_IMPLEMENTATIONS)}]",
    "implementations code": "text: FILE.py:NAME or package.module:NAME",
    "implementations name": "text without line breaks",
    "implementations passes": "a mapping of passes to expressions, such as "
    "{forward: 'convolve(x, kernel)'}",
    **dict.fromkeys(
        ("implementations layout", "implementations output_layout"),
        "the axes N, C, H and W in their order, such as NHWC",
    ),
    "implementations kernel_layout": "the axes O, I, H and W in their order, such as HWIO",
    "passes": f"a list of passes: [{', '.join(Pass)}]",
    "threads": "all, or an integer of at least 1",
    "effort": "smoke, quick, standard or rigorous",
    "environment": "a mapping of variables, such as {TF_ENABLE_ONEDNN_OPTS: 0}",
    "environment key": "a variable name of letters, digits and _, with text, an integer or null "
    "as its value",
    "environment[]": "text, an integer, or null to unset the variable",
    "provenance": "what `convbench import` wrote: source, format, read and merged",
    "provenance[]": "what `convbench import` wrote: text, a number, or a list of texts",
    **dict.fromkeys(("source", "format"), "text"),
    **dict.fromkeys(("read", "merged"), "a number of convolutions"),
    "gate": "a list with at least one rule",
    "gate[]": "a mapping such as {implementation: im2col, versus: loop, at_least: 20}",
    "versus": f"the name of an implementation, FILE.py:NAME, or {FASTEST_KERAS}",
    "layer": "a pattern of layer names, such as conv*",
    "of": "each or geometric_mean",
    "at_most_bytes": "an integer of at least 1; 4 MiB are 4194304",
    "input_shape": "two or three integers of at least 1: [height, width, channels]",
    "padding": "valid, same, an integer of at least 0, or [[top, bottom], [left, right]]",
    "use_bias": "true or false",
    "dtype": "float32 or float64",
    **dict.fromkeys(
        ("filters", "groups", "batch_size", "count"),
        f"an integer from 1 to {MAX_INTEGER}",
    ),
    **dict.fromkeys(
        ("kernel_size", "strides", "dilation_rate"),
        "an integer of at least 1, or two as [height, width]",
    ),
    **dict.fromkeys(
        ("implementations[]", "implementation"),
        "the name of an implementation, FILE.py:NAME or package.module:NAME",
    ),
    **dict.fromkeys(("passes[]", "pass"), "forward, input-gradient or kernel-gradient"),
    **dict.fromkeys(("at_least", "per_cent_of_peak"), "a finite number above 0"),
}
"""What is expected of a field, in suites and in files that have the same keys. A kind of file that
differs says so in its `words`."""

_TEXT_KEYS = (
    *("name", "layers name", "layer", "description"),
    *("environment[]", "implementations[]", "passes[]"),
)
_NUMBER_KEYS = (*("at_least", "per_cent_of_peak", "read", "merged", "provenance[]"),)
"""Keys whose values may be any number, and not only an integer or a text."""

MAX_LISTED = 10
"""Most names that a message lists."""

# Other tools' words for our keys, if they are not similar; in lower case, without underscores.
_OTHER_NAMES = {
    "input_shape": "channels inchannels inputchannels height width",
    "filters": "outchannels outputchannels numfilters numoutput units",
    "kernel_size": "ksize filtersize window",
    "strides": "steps subsample",
    "padding": "pad pads bordermode",
    "groups": "featuregroupcount",
    "count": "repeat repeats times",
    "implementations": "impl backends",
    "implementation": "impl backend",
    "code": "file path source function callable module",
    "layout": "dataformat format axes",
    "kernel_layout": "kernelformat weightslayout",
    "passes": "calls expressions modes",
    "versus": "vs against baseline over reference",
    "layer": "pattern",
    "of": "aggregate statistic",
    "at_least": "minimum min floor speedup",
    "at_most_bytes": "bytes maxbytes memory peakbytes",
    "per_cent_of_peak": "percent peak",
    "gate": "rules gates",
    "threads": "cores jobs",
    "environment": "env variables",
}
_ADVICE = {
    "channels": "the input's channels are the third number of input_shape, "
    "the output's are filters",
    "inchannels": "channels are the third number of input_shape",
}
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_CLOSE = 0.65  # least ratio of difflib: bias may mean use_bias (0.67), conv1 not count (0.60)
_SYNTAX_ADVICE = {
    "mapping values are not allowed": "check the indentation, or quote text that contains ': '",
    "expected <block end>": "check the indentation, and that lists and keys are not mixed",
    "could not find expected ':'": "a key needs a colon and a space after it",
    "expected ',' or": "check for a missing comma or bracket",
    "found undefined alias": "define it with & above its first use, or quote the text",
    "cannot start any token": "quote the text",
    "expected alphabetic or numeric character": "quote text that starts with * or &",
    "found unexpected end of stream": "close the quote",
}


def expected(field: str, kind: Kind) -> str:
    """What is expected of a field that `field_of` gave, or of a whole file, by the kind's name."""
    return kind.words.expected.get(field) or EXPECTED[field]


def field_of(keys: Keys, kind: Kind) -> str:
    """Return the key of a value in `expected`, which names its list or mapping if it matters."""
    *parents, name = keys
    place = next((key for key in reversed(parents) if isinstance(key, str)), "")
    inside = f"{place}[]" if isinstance(name, int) else f"{place} {name}"
    known = EXPECTED.keys() | kind.words.expected.keys()
    return next((f for f in (f"{kind.name} {inside}", inside) if f in known), str(name))


def wrong_value(keys: Keys, node: yaml.Node, kind: Kind) -> str:
    """Say what was found at a node, what was expected there and, if it is known, what to do."""
    field = field_of(keys, kind)
    if len(keys) > 1 and keys[0] in ("environment", "provenance"):
        field = f"{keys[0]}[]"
    scalar = node.tag.rpartition(":")[2] if isinstance(node, yaml.ScalarNode) else ""
    remedy = ""
    if field in _TEXT_KEYS:
        if scalar in ("int", "float", "bool"):
            remedy = f'; write it in quotes: "{shown(node.value)}"'
    elif scalar == "null" and field not in kind.words.alone:
        remedy = "; give it a value, or remove the key"
    elif scalar == "str":
        remedy = _remedy(node.value, field, kind)
    return f"found {found(node)}, expected {expected(field, kind)}{remedy}"


def _remedy(text: str, field: str, kind: Kind) -> str:
    """Say what to do about text that should be another name, or that should not be text.

    The answer is empty if nothing is known to do.
    """
    if field in kind.choices:
        if text in kind.choices[field]:
            return f"; {text} needs its keys, {expected(text, kind)}"
        close = _close_names(text, kind.choices[field], kind)
        return f"; did you mean {close[0]}?" if close else ""
    if _needs_no_quotes(text):
        return "; remove the quotes"
    if field in (*_NUMBER_KEYS, *kind.words.numbers) and _EXPONENT.fullmatch(text):
        return f"; write {yaml.safe_dump(float(text)).split()[0]}"  # 1e-3 is text in YAML 1.1
    return ""


def _close_names(name: str, names: Collection[str], kind: Kind) -> list[str]:
    """Return those of `names` that somebody may have meant, the likeliest first."""
    key = _letters(name)
    other_names = {**_OTHER_NAMES, **kind.words.other_names}
    close = [name for name in names if key in other_names.get(name, "").split()]
    return close + get_close_matches(key, names, n=1, cutoff=_CLOSE)


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _needs_no_quotes(text: str) -> bool:
    return text.replace(".", "", 1).isdigit() or text.lower() in ("true", "false")


def unknown_key(location: Keys, kind: Kind) -> tuple[str, str | None]:
    """Return what to say about an unknown key, and which key of its place was meant, if any.

    `location` has the tags of the model.
    """
    top, name = location[0], str(location[-1])
    here = kind.keys_at(location)
    home_of = {name: home for home, names in reversed(kind.homes.items()) for name in names}
    close = _close_names(name, here, kind) + _close_names(name, home_of, kind)
    meant = next((name for name in close if name in here), None)
    if name == "<<":
        instead = top != "gate" and "defaults" in home_of
        remedy = "; use defaults instead" if instead else ""
        return f"found a YAML merge key, expected keys written out{remedy}", None
    if meant:
        remedy = f"; {_ADVICE.get(_letters(name), f'did you mean {meant}?')}"
    elif top == "defaults" and close[:1] == ["name"]:
        remedy = "; each layer has a name of its own"
    else:
        remedy = f"; {close[0]} belongs {home_of[close[0]]}" if close else ""
    if len(here) > 1:
        allowed = f"one of {', '.join(here)}"
    else:
        allowed = f"{here[0]} and nothing else" if here else "none"
    return f"found an unknown key, expected {allowed}{remedy}", meant


def syntax(error: yaml.MarkedYAMLError) -> str:
    """Say what PyYAML found wrong, and what that means to somebody who does not know its terms."""
    problem = error.problem or "not YAML"
    if "'\\t'" in problem:
        return "found a tab, expected spaces; YAML indents with spaces only"
    if problem == "but found another document":
        return "found a second document, expected one; remove the ---"
    context = f", {error.context}" if error.context else ""
    if context and error.context_mark:
        context += f" that starts on line {error.context_mark.line + 1}"
    advice = next((f"; {a}" for words, a in _SYNTAX_ADVICE.items() if words in problem), "")
    return f"not valid YAML: {problem}{context}{advice}"


def found(node: yaml.Node) -> str:
    """Name the value at a node, as it was written: `the number 3`, `an empty list`."""
    if isinstance(node, yaml.CollectionNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "mapping"
        if not node.value:
            return f"an empty {kind}"
        written = (node.start_mark.buffer or "")[node.start_mark.pointer : node.end_mark.pointer]
        return f"the {kind} {shown(' '.join(written.split()))}"
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return "nothing"
    if kind in ("int", "float", "bool"):
        return f"the {'boolean' if kind == 'bool' else 'number'} {shown(node.value)}"
    return f"the text {quoted(node.value)}"


def shown(text: str) -> str:
    """Make text fit for a terminal: short, on one line, and without control characters."""
    short = text if len(text) <= 60 else text[:57] + "..."
    return short if short.isprintable() else ascii(short)[1:-1]


def quoted(text: str) -> str:
    return f'"{shown(text)}"'


def listed(names: Collection[str]) -> str:
    """List names for a message, at most MAX_LISTED of them."""
    more = len(names) - MAX_LISTED
    some = ", ".join(map(shown, [*names][:MAX_LISTED])) or "there is no other"
    return f"{some} and {more} more" if more > 0 else some


def did_you_mean(name: str, names: Collection[str]) -> str:
    """Return the remedy for a name that is none of `names`, or nothing if no name is close."""
    close = get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {shown(close[0])}?" if close else ""


def is_whole(text: str) -> bool:
    """Tell whether text can be printed and stored. YAML's escapes can write half a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)
