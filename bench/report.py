"""Samples, their medians, and the tables that are printed and saved."""

from __future__ import annotations

import csv
import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.clients import WORKS
from bench.targets import KINDS


@dataclass(frozen=True)
class Settings:
    """How it was measured."""

    began: str
    machine: str
    command: str
    rounds: int
    seconds: int
    pins: str


@dataclass(frozen=True)
class Sample:
    """One measurement. `target_us`, `client_us`: CPU time of all their processes in µs an I/O;
    `other_percent`: what the rest of the machine used meanwhile, in per cent of a core."""

    storage: str
    round: int
    work: str
    sessions: int
    client: str
    digests: bool
    target: str
    iops: float
    mb_per_second: float
    target_us: float
    client_us: float
    seconds: float
    other_percent: float

    def line(self) -> str:
        """For the terminal."""
        what = f"{self.storage:5} {self.round} {self.work:9} x{self.sessions} {'crc' if self.digests else '   '}"
        how = f"{self.iops:9.0f} IOPS {self.mb_per_second:7.0f} MB/s {self.target_us:7.1f} us target"
        return f"{what} {self.target:15} {how} {self.client_us:7.1f} us {self.client}, other {self.other_percent:.0f} %"


@dataclass(frozen=True)
class Weight:
    """Memory in KiB: with one session, for each further idle session, and after loads of every kind."""

    target: str
    rss_one: float
    pss_one: float
    anonymous_one: float
    rss_each: float
    pss_each: float
    anonymous_each: float
    rss_loaded: float


@dataclass(frozen=True)
class Median:
    """Over the rounds."""

    iops: float
    lowest: float
    highest: float
    mb_per_second: float
    target_us: float
    client_us: float
    other_percent: float
    rounds: int


# storage, work, sessions, client, digests → target → median
Key = tuple[str, str, int, str, bool]
Medians = dict[Key, dict[str, Median]]


def medians(samples: Iterable[Sample]) -> Medians:
    """Medians over the rounds, in the order in which they were first measured."""
    groups: dict[Key, dict[str, list[Sample]]] = {}
    for sample in samples:
        key = (sample.storage, sample.work, sample.sessions, sample.client, sample.digests)
        groups.setdefault(key, {}).setdefault(sample.target, []).append(sample)
    return {key: {name: _median(group) for name, group in groups[key].items()} for key in groups}


def _median(group: list[Sample]) -> Median:
    def middle(value: Callable[[Sample], float]) -> float:
        return statistics.median(map(value, group))

    return Median(
        iops=middle(lambda sample: sample.iops),
        lowest=min(sample.iops for sample in group),
        highest=max(sample.iops for sample in group),
        mb_per_second=middle(lambda sample: sample.mb_per_second),
        target_us=middle(lambda sample: sample.target_us),
        client_us=middle(lambda sample: sample.client_us),
        other_percent=middle(lambda sample: sample.other_percent),
        rounds=len(group),
    )


def best_peer(row: dict[str, Median]) -> float | None:
    """IOPS of the fastest target of others; None when none was measured."""
    return max((row[name].iops for name in row if KINDS[name].peer), default=None)


# What must be reached, with one session: work, our variant, times tgt's figure at least, target CPU µs at most.
@dataclass(frozen=True)
class _Bar:
    work: str
    factor: float
    ours: str = "blockyard"
    cpu_us: float | None = None


_BARS = (
    _Bar("r4k-d32", 3.5, cpu_us=8.0),
    _Bar("r4k-d1", 1.0),
    _Bar("r4k-d1", 1.6, ours="blockyard-poll"),
    _Bar("r256k-d16", 2.5),
    _Bar("w4k-d32", 2.0),
    _Bar("w256k-d16", 3.0),
)
_DIGEST_SHARE = 0.6
_RSS_ONE_KIB = 60 * 1024
_RSS_EACH_KIB = 256


def bars(table: Medians, weights: Iterable[Weight], storage: str) -> Iterator[tuple[str, str, str, str]]:
    """For each thing that must be reached: what, what was measured, at least/at most, and whether it holds."""
    for bar in _BARS:
        row = table.get((storage, bar.work, 1, WORKS[bar.work].client, False), {})
        title = WORKS[bar.work].title + (" (--poll)" if bar.ours == "blockyard-poll" else "")
        if bar.ours not in row or "tgt" not in row:
            yield title, "not measured", f"{bar.factor} x tgt", "?"
            continue
        ratio = row[bar.ours].iops / row["tgt"].iops
        figures = f"{row[bar.ours].iops:,.0f} to {row['tgt'].iops:,.0f} IOPS = {ratio:.2f} x tgt"
        yield title, figures, f"{bar.factor} x tgt", _verdict(ratio >= bar.factor)
        if bar.cpu_us is not None:
            used = row[bar.ours].target_us
            tgt = f"{used:.1f} µs an I/O (tgt: {row['tgt'].target_us:.1f})"
            yield f"{title}, target CPU", tgt, f"<= {bar.cpu_us:.0f} µs", _verdict(used <= bar.cpu_us)
    for work in WORKS.values():
        without = table.get((storage, work.name, 1, "load", False), {}).get("blockyard")
        with_digests = table.get((storage, work.name, 1, "load", True), {}).get("blockyard")
        title = f"header + data digest, {work.title}"
        if without is None or with_digests is None:
            yield title, "not measured", f"{_DIGEST_SHARE:.0%} of without", "?"
            continue
        share = with_digests.iops / without.iops
        figures = f"{with_digests.iops:,.0f} to {without.iops:,.0f} IOPS = {share:.0%}"
        yield title, figures, f"{_DIGEST_SHARE:.0%} of without", _verdict(share >= _DIGEST_SHARE)
    ours = next((weight for weight in weights if weight.target == "blockyard"), None)
    if ours is not None:
        one, each = ours.rss_one, ours.rss_each
        yield "worker's memory, 1 session", f"{one / 1024:.1f} MiB RSS", "<= 60 MiB", _verdict(one <= _RSS_ONE_KIB)
        yield "each further idle session", f"{each:.0f} KiB RSS", "<= 256 KiB", _verdict(each <= _RSS_EACH_KIB)


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**falls short**"


def markdown(settings: Settings, samples: list[Sample], weights: list[Weight], failures: list[str]) -> str:
    """The whole report."""
    return "\n".join(_lines(settings, samples, weights, failures)) + "\n"


_SECTIONS: dict[str, Callable[[Key], bool]] = {
    "One session": lambda key: key[2] == 1 and key[3] != "load",
    "Several sessions at the same time": lambda key: key[2] > 1,
    "One session, without and with digests": lambda key: key[2] == 1 and key[3] == "load",
}


def _lines(settings: Settings, samples: list[Sample], weights: list[Weight], failures: list[str]) -> Iterator[str]:
    table = medians(samples)
    yield f"# Side by side, {settings.began}"
    yield ""
    yield f"{settings.machine}; medians of {settings.rounds} interleaved rounds of {settings.seconds} s; " + (
        "all other targets stopped while one is measured. Initiator and target share the machine."
    )
    pins = {
        "apart": "the client is pinned to the first CPU and the target to the second",
        "together": "client and target are pinned to the same CPU",
        "no": "nothing is pinned",
    }
    yield f"With 1 session at depth 1 {pins[settings.pins]}; all else is left to the scheduler."
    yield f"Options: `{settings.command or '(none)'}`."
    for storage in dict.fromkeys(sample.storage for sample in samples):
        yield from ("", f"## What must be reached ({storage})", "", "| work | measured | bar | |", "|---|---|---|---|")
        for row in bars(table, weights, storage):
            yield f"| {' | '.join(row)} |"
        for title, wanted in _SECTIONS.items():
            keys = [key for key in table if key[0] == storage and wanted(key)]
            if keys:
                yield from ("", f"## {title} ({storage})")
                yield from _figures({key: table[key] for key in keys})
    if weights:
        yield from _weights(weights)
    if failures:
        yield from ("", "## Not measured", "")
        yield from (f"- {failure.strip()}" for failure in failures)


def _figures(table: Medians) -> Iterator[str]:
    yield ""
    yield "| work | sessions | target | IOPS (lowest-highest) | MB/s | target µs/IO | client µs/IO | x tgt | x best peer | other |"  # noqa: E501
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for (_, work, sessions, client, digests), row in table.items():
        tgt = row.get("tgt") or row.get("tgt-digest")
        best = best_peer(row)
        for name in sorted(row, key=list(KINDS).index):
            value = row[name]
            cells = [
                work + (" CRC32C" if digests else ""), str(sessions), name,
                f"{value.iops:,.0f} ({value.lowest:,.0f}-{value.highest:,.0f})", f"{value.mb_per_second:,.0f}",
                f"{value.target_us:.1f}", f"{value.client_us:.1f} ({client})",
                f"{value.iops / tgt.iops:.2f}" if tgt else "", f"{value.iops / best:.2f}" if best else "",
                f"{value.other_percent:.0f} %",
            ]  # fmt: skip
            yield f"| {' | '.join(cells)} |"


def _weights(weights: list[Weight]) -> Iterator[str]:
    yield from ("", "## Memory of the processes that hold the sessions", "")
    yield "| target | 1 session: RSS (PSS, anonymous) | each further idle session (likewise) | RSS after load |"
    yield "|---|---|---|---|"
    for weight in weights:
        one = f"{weight.rss_one / 1024:.1f} MiB ({weight.pss_one / 1024:.1f}, {weight.anonymous_one / 1024:.1f})"
        each = f"{weight.rss_each:.0f} KiB ({weight.pss_each:.0f}, {weight.anonymous_each:.0f})"
        yield f"| {weight.target} | {one} | {each} | {weight.rss_loaded / 1024:.1f} MiB |"


def save(
    directory: Path, settings: Settings, samples: list[Sample], weights: list[Weight], failures: list[str]
) -> Path:
    """Write samples.csv, results.json and report.md into a new directory; return it."""
    directory.mkdir(parents=True)
    with (directory / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(Sample))
        writer.writerows(dataclasses.astuple(sample) for sample in samples)
    names = ("storage", "work", "sessions", "client", "digests")
    results = {
        "settings": dataclasses.asdict(settings),
        "medians": [
            dict(zip(names, key, strict=True)) | {"target": name} | dataclasses.asdict(value)
            for key, row in medians(samples).items()
            for name, value in row.items()
        ],
        "memory": [dataclasses.asdict(weight) for weight in weights],
        "failures": failures,
    }
    (directory / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (directory / "report.md").write_text(markdown(settings, samples, weights, failures), encoding="utf-8")
    return directory
