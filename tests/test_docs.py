"""Test the documentation against the code: examples run, tables match, links and modules exist."""

import ast
import dataclasses
import math
import re
import shlex
import shutil
import subprocess
import sys
import types
from typing import get_args

import pytest
import yaml

from convbench.agreement.check.case import Case
from convbench.agreement.check.checker import check
from convbench.errors import ExitCode
from convbench.gate import Outcome
from convbench.implementations.registry import BUILT_IN, Registry
from convbench.measure import clock
from convbench.problem.layer import Pass
from convbench.problem.operands import floats
from convbench.profile.stages import OTHER, timed_stages
from convbench.report.views.resolution_notes import WIDE_TWIN
from convbench.results import file as result_file
from convbench.results import phases, summary
from convbench.results.model import PAUSE_S, Status
from convbench.results.stats import MIN_ROUNDS
from convbench.schedule import sharing, timing
from convbench.schedule.confirming import LOOP_PLAN
from convbench.schedule.effort import EFFORTS
from convbench.suites.file import read_rules, read_suite
from convbench.suites.suite import Rule
from tests.cli import ROOT, convbench, run_tiny

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), ROOT / "README.md"]
PACKAGE = ROOT / "convbench"
MODULES = sorted(p.relative_to(PACKAGE) for p in PACKAGE.rglob("*.py"))
LAYERS = read_suite(ROOT / "configs" / "geometry.yaml").layers


def _text(page):
    return (DOCS / page).read_text()


def _python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", _text(page), re.MULTILINE | re.DOTALL)


def _code_words(page):
    """Return the names between backticks, outside code blocks, of a page."""
    prose = re.sub(r"^```.*?^```$", "", _text(page), flags=re.MULTILINE | re.DOTALL)
    return {word for code in re.findall(r"`([^`]+)`", prose) for word in re.split(r"[ .]", code)}


# adding-an-implementation.md


@pytest.fixture(scope="module")
def example():
    """Register the page's implementation by the page's own line, and return it."""
    source, line = _python_blocks("adding-an-implementation.md")
    ((name, place),) = re.findall(r'^ *"(.+)": "(.+)",$', line, re.MULTILINE)
    module = types.ModuleType(place.partition(":")[0])
    exec(compile(source, module.__name__, "exec"), module.__dict__)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        yield Registry({**BUILT_IN, name: place}).get(name)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("pass_", Pass)
def test_the_example_agrees(example, layer, pass_):
    reason = example.unsupported(layer, pass_)
    if reason is not None:
        assert reason.why
        assert reason.lacks
        return
    found = check(Case(example, layer, pass_, threads=1, seed=1))
    assert found.verdict == "agrees", found.diagnosis
    assert found.exact is (True if example.exact(layer, pass_) else None)


def test_the_example_has_every_part_that_an_implementation_must_have(example):
    assert example.name not in BUILT_IN
    supported = [p for p in Pass if example.unsupported(LAYERS[0], p) is None]
    assert supported
    for pass_ in supported:
        assert example.workspace_bytes(LAYERS[0], pass_, 1) > 0
        prepared = example.prepare(LAYERS[0], pass_, 1)
        assert prepared.ledger.inside
        assert prepared.ledger.outside
        assert prepared.buffers, "the example shows how a buffer is poisoned"
        prepared.load(floats(LAYERS[0], pass_, 0))
        found = timed_stages(prepared)
        assert [stage.name for stage in found] == ["pad", "product", OTHER]
        assert found[1].calls == math.prod(LAYERS[0].kernel_size)


# result-format.md


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    output = tmp_path_factory.mktemp("docs") / "tiny.json"
    done, document = run_tiny(output)
    assert done.returncode == 0, done.stderr
    return output, document


def _output_of(block, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", block, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_json_example_reads_a_result_file(tiny):
    output, document = tiny
    printed = _output_of(_python_blocks("result-format.md")[0], output)
    for cell in document["convbench"]["cells"]:
        time = f"{cell['time']['time_s'] * 1e3:.3g} ms"
        assert f"{cell['layer']} {cell['pass']} {cell['implementation']} {time}\n" in printed
    for row in document["convbench"]["speedups"]:
        assert f"   {row['ratio']} no interval" in printed


def test_the_pyperf_example_reads_a_result_file(tiny):
    output, document = tiny
    _, block = _python_blocks("result-format.md")
    lines = _output_of(block, output).splitlines()
    assert len(lines) == len(document["benchmarks"])
    for benchmark, line in zip(document["benchmarks"], lines, strict=True):
        assert line.startswith(f"{benchmark['metadata']['name']} round 1 ")
        assert len(line.split()) == 3 + len(benchmark["runs"][0]["values"])


def test_every_key_of_a_result_file_is_explained(tiny):
    schema = result_file.json_schema()
    objects = [schema, *schema["$defs"].values()]
    keys = {key for of_object in objects for key in of_object.get("properties", {})}
    run = tiny[1]["benchmarks"][0]["runs"][0]
    keys |= {*run, *run["metadata"]}
    assert keys - _code_words("result-format.md") == set()


def test_every_status_and_exit_code_is_explained():
    text = _text("result-format.md")
    for status in get_args(Status):
        assert f"| `{status}` |" in text
    for code in ExitCode:
        assert f"| {code.value} |" in text


# measuring.md


def test_the_table_of_efforts_has_the_codes_figures():
    rows = re.findall(
        r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) ms \| (\d+) \| (\d+) ms \| (none|99 %) \|",
        _text("measuring.md"),
        re.M,
    )
    assert {name: (*map(int, figures), interval) for name, *figures, interval in rows} == {
        name: (
            *(e.rounds, e.visits, round(e.visit_s * 1e3), e.slow_samples, round(e.wake_s * 1e3)),
            "none" if e.rounds < MIN_ROUNDS else "99 %",
        )
        for name, e in EFFORTS.items()
    }


def test_the_figures_that_the_page_gives_in_words_are_the_codes():
    words = " ".join(_text("measuring.md").split())
    for said in (
        f"as many calls as fill {EFFORTS['standard'].sample_s * 1e3:g} ms",
        f"The first {['no', 'one', 'two'][clock.WATCHED_VISITS]} visits to an arm",
        f"{clock.WAKE_MARGIN:g} times as long as it needed, and for {clock.LEAST_WAKE_S:g} s",
        f"the first call after a pause of {PAUSE_S:g} s",
        f"took {phases.CALM:g} times as long",
        f"wider than {sharing.NARROW * 100:g} %, the widest first",
        f"or there are {timing.MOST_ROUNDS} rounds",
        f"{LOOP_PLAN.wake_s:g} s of warming up, then "
        f"{LOOP_PLAN.samples(0):d} samples of {LOOP_PLAN.sample_s * 1e3:g} ms",
        f"at least {math.expm1(summary.LEAST_APART) * 100:.0f} % apart",
        f"probability of at most {summary.TWIN_ALPHA * 100:g} %",
        f"From ±{WIDE_TWIN * 100:g} % on",
    ):
        assert said in words, said


# ci.md


def _yaml_blocks(page):
    return re.findall(r"^```yaml\n(.*?)^```$", _text(page), re.MULTILINE | re.DOTALL)


def test_the_workflow_does_what_it_says(tmp_path):
    """Its steps have the form of GitHub Actions, and its gate runs in a clone as it is written."""
    workflow = yaml.safe_load(_yaml_blocks("ci.md")[0])
    (job,) = workflow["jobs"].values()
    assert workflow[True] == "pull_request"  # YAML 1.1 reads `on` as a truth value
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    (gate,) = [step["run"] for step in job["steps"] if step.get("run", "").startswith("convbench")]
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for words in (["init", "--initial-branch=main"], ["add", "."], ["commit", "-m", "all"]):
        git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", *words]
        subprocess.run(git, cwd=tmp_path, check=True, capture_output=True)
    summary = tmp_path / "summary.md"
    summary.touch()
    command = shlex.split(gate.replace("origin/${{ github.base_ref }}", "main"))
    done = convbench(
        *(*command[1:], "--effort", "smoke", "--layer", "small"),
        cwd=tmp_path,
        GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert done.returncode == 0, done.stderr
    assert "my_conv.py:convolve@main" in summary.read_text()
    assert (tmp_path / "gate.xml").read_text().startswith("<?xml")


def test_the_floors_shown_can_be_read(tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text(_yaml_blocks("ci.md")[1])
    assert len(read_rules(rules)) == 4


def test_every_verdict_and_rule_key_is_explained():
    text = _text("ci.md")
    for outcome in get_args(Outcome):
        assert f"| {outcome} |" in text
    for field in dataclasses.fields(Rule):
        assert f"`{field.name.rstrip('_')}`" in text


@pytest.mark.slow
def test_the_noise_command_of_the_page_runs(tmp_path):
    (line,) = re.findall(r"^\$ convbench (noise .*)$", _text("ci.md"), re.MULTILINE)
    done = convbench(
        *shlex.split(line), "--effort", "smoke", "--layer", "small", "--quiet", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "noise.json").exists()


# architecture.md


def test_the_table_of_rooms_is_the_packages():
    """Each room has one row, with the first line of the room's docstring."""
    rooms = {
        f"{init.parent.relative_to(PACKAGE)}/": ast.get_docstring(ast.parse(init.read_text()))
        for init in PACKAGE.rglob("__init__.py")
        if init.parent != PACKAGE
    }
    table = re.search(r"^\| room \|.+\n\|-.+\n((?:\|.+\n)+)", _text("architecture.md"), re.M)[1]
    rows = re.findall(r"^\| `([\w/]+/)` \| (.+) \|$", table, re.M)
    assert len(rows) == len(table.splitlines())
    assert dict(rows) == {room: text.splitlines()[0] for room, text in rooms.items()}


def test_every_module_says_what_it_does():
    for module in MODULES:
        assert ast.get_docstring(ast.parse((PACKAGE / module).read_text())), module


def test_the_files_that_the_architecture_names_are_there():
    named = set(re.findall(r"`([\w/]+\.py)`", _text("architecture.md")))
    assert len(named) > 10
    assert [
        name for name in named if not ((PACKAGE / name).exists() or (ROOT / name).exists())
    ] == []


def test_the_direction_of_imports_is_that_of_import_linter():
    rules = (ROOT / ".importlinter").read_text()
    lines = re.search(r"^layers =\n(.+?)\ncontainers", rules, re.M | re.S)[1].splitlines()
    (drawn,) = re.findall(r"^```\n(cli .+?)^```$", _text("architecture.md"), re.M | re.S)
    assert [line.split() for line in drawn.splitlines()] == [
        line.replace(":", " ").split() for line in lines
    ]


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    pattern = r"`((?:convbench|tests|benchmarks|examples|configs)/[\w/.-]+\.\w+)`"
    named = set(re.findall(pattern, page.read_text()))
    missing = [name for name in sorted(named) if not (ROOT / name).exists()]
    example = "convbench/implementations/numpy/taps.py"  # a page writes it, and it is not kept
    assert missing in ([], [example])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file.read_text()), target


def _anchors(text):
    """Return the anchors that GitHub makes of the headings: lower case, with hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_pages_with_links():
    assert len(PAGES) >= 5
    assert any("](" in page.read_text() for page in PAGES)
