"""Measure the seconds until a speedup is known to 5, 3 and 2 %, with convbench and other tools.

    python benchmarks/precision.py [--pairs numpy,keras] [-o FILE] > results/precision.txt
    python benchmarks/precision.py --resume FILE [--minutes 60] > results/precision.txt
    python benchmarks/precision.py --from FILE

Each tool is asked for the speedup of one function over another, with more and more effort until
half of the interval that it claims is narrow enough. Two copies of one function have a speedup of
1, and an interval without 1 is wrong. Each answer is saved at once. A campaign that was stopped
goes on with --resume, on the same CPU only. Nothing else may run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from precision_answers import (
    PAIRS,
    PRECISIONS,
    Answer,
    Campaign,
    Question,
    Setting,
    load,
    questions,
    save,
    timestamp,
)
from precision_tables import as_text, report
from precision_tools import (
    TOOLS,
    OutOfTimeError,
    Request,
    ToolError,
    environment,
    missing,
    prepare,
)

from convbench.errors import ConvbenchError

ROOT = Path(__file__).parents[1]
FILE = ROOT / "results" / "precision.json"


def main() -> None:
    options = _options()
    try:
        if options.from_:
            campaign, remarks = load(options.from_), []
        else:
            left_out = missing(options.tools)
            remarks = [f"left out: {name}: {why}" for name, why in left_out.items()]
            _say(*remarks)
            options.tools = [name for name in options.tools if name not in left_out]
            campaign = run(options)
    except (ConvbenchError, OSError, ToolError) as error:
        sys.exit(f"precision.py: {error}")
    print(as_text(report(campaign, remarks)), end="")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=_names(PAIRS), default=list(PAIRS), help="comma-separated")
    parser.add_argument("--tools", type=_names(TOOLS), default=list(TOOLS), help="comma-separated")
    parser.add_argument(
        "--precisions", type=_percents, default=list(PRECISIONS), help="comma-separated: 5%%,3%%"
    )
    parser.add_argument("--repetitions", type=int, help="of each pair, not its usual number")
    parser.add_argument("--minutes", type=float, help="stop after the answer that ends later")
    parser.add_argument("--threads", type=int, help="of both functions; else one a CPU")
    parser.add_argument("--ceiling", type=float, metavar="SECONDS", help="of an answer")
    files = parser.add_mutually_exclusive_group()
    files.add_argument("-o", dest="new", type=Path, default=FILE, metavar="FILE")
    files.add_argument("--resume", type=Path, metavar="FILE")
    files.add_argument("--from", dest="from_", type=Path, metavar="FILE", help="only print")
    options = parser.parse_args()
    if options.resume and (options.threads or options.ceiling):
        parser.error("--resume goes on with the file's --threads and --ceiling: leave them out")
    return options


def _names(known: Mapping[str, object]) -> Callable[[str], list[str]]:
    def names(words: str) -> list[str]:
        found = [word.strip() for word in words.split(",")]
        if unknown := [word for word in found if word not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return found

    return names


def _percents(words: str) -> list[float]:
    try:
        found = [round(float(word.strip().removesuffix("%")) / 100, 9) for word in words.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{words!r}: expected numbers such as 5%,3%") from None
    if min(found) <= 0:
        raise argparse.ArgumentTypeError(f"{words!r}: a precision is above 0 %")
    return found


def run(options: argparse.Namespace) -> Campaign:
    """Ask the questions that have no answer yet, and save each answer.

    Raises ResultError for a file that cannot go on here, and ToolError for a tool that fails.
    """
    path, campaign = started(options)
    counts = {name: options.repetitions or PAIRS[name].repetitions for name in options.pairs}
    asked = list(questions(options.pairs, options.tools, options.precisions, counts))
    todo = campaign.open_questions(asked)
    _say(f"{len(asked) - len(todo)} of {len(asked)} questions are answered")
    ends = time.monotonic() + 60 * options.minutes if options.minutes else None
    for question in todo:
        if ends is not None and time.monotonic() > ends:
            _say(f"stopped after {options.minutes:g} minutes: go on with --resume {path}")
            break
        answer = ask(question, campaign.setting)
        campaign = campaign.with_answer(answer)
        save(path, campaign)
        _say(described(answer))
    return campaign


def started(options: argparse.Namespace) -> tuple[Path, Campaign]:
    """Return the file to save to, and the campaign so far. Raises ResultError for a file that
    cannot go on here, and ConvbenchError if the file for a new campaign exists."""
    if options.resume:
        campaign = load(options.resume)
        campaign.check_here()
        return options.resume, campaign
    path: Path = options.new
    if path.exists():
        raise ConvbenchError(f"{path} exists: go on with it by --resume, or name another with -o")
    campaign = Campaign(Setting.here(options.threads, options.ceiling))
    path.parent.mkdir(parents=True, exist_ok=True)
    save(path, campaign)
    return path, campaign


def ask(question: Question, setting: Setting) -> Answer:
    """Ask a tool, in a fresh folder and in processes of its own. Raises ToolError."""
    pair, tool = PAIRS[question.pair], TOOLS[question.tool]
    began = timestamp()
    with tempfile.TemporaryDirectory(prefix="convbench-precision-") as name:
        folder = Path(name)
        prepare(pair, folder)
        request = Request(
            folder,
            question.precision,
            setting.ceilings_s[pair.name],
            setting.threads,
            environment(os.environ, setting.threads),
        )
        try:
            finding = tool.ask(request)
        except OutOfTimeError:
            finding = None
        seconds = request.elapsed_s
    return Answer(question, seconds, finding, began)


def described(answer: Answer) -> str:
    """Return one line on an answer, for whoever watches the campaign."""
    question, found = answer.question, answer.finding
    precision = f"{question.precision * 100:g} %"
    asked = f"{question.pair} {question.repetition}, {question.tool} to {precision}"
    if found is None:
        return f"{asked}: no figure in {answer.seconds:.1f} s"
    figure = f"{found.ratio:.4f} ±{found.half_width:.2%}"
    return f"{asked}: {figure} in {answer.seconds:.1f} s ({found.said})"


def _say(*lines: str) -> None:
    for line in lines:
        print(f"precision.py: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
