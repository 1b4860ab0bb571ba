#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares kvkeep with LMCache's own file storage through LMCache's own benchmark, `lmcache bench l2`.

kvkeep as `native_plugin` (connector) and as `plugin` (adapter) takes turns with nixl_store_dynamic, fs and fs_native: the
same directory, sizes and calls. Prints a table of figures with what there is to reach and a table of everybody (both
Markdown), and writes every run as JSON lines. docs/performance.md says how to read it.

Everybody takes one turn in every row before the next turn begins, so that a run that is cut off by --minutes has measured all
rows alike, and a bad minute of the machine costs each row one turn at most.
"""

import argparse
import collections
import os
import shutil
import statistics
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import device, pairs, peers, programs, report  # noqa: E402

KIB = 1 << 10
MIB = 1 << 20
# direct: past the page cache. cold: through it, and dropped before the loads. hot: through it, and not dropped.
MODES = ("direct", "cold", "hot")
# hot is memory wherever the files lie.
RAM_MODES = ("direct", "cold")
RAM_BYTES = 4 << 30
WARM_BYTES = 64 * MIB
SKIPPED = 77


def sizes(text):
    """Bytes of '64K,1M': whole KiB from 4, since LMCache's buffers are aligned to pages here."""
    found = []
    for word in text.split(","):
        number, unit = word[:-1], word[-1:].upper()
        if unit not in ("K", "M") or not number.isdigit() or not 4 * KIB <= int(number) * KIB ** (1 + (unit == "M")) <= 1 << 30:
            raise argparse.ArgumentTypeError(f"{word!r} is not a size such as 64K or 32M")
        found.append(int(number) * KIB ** (1 + (unit == "M")))
    return found


def counts(text):
    if not all(word.isdigit() and int(word) for word in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,16")
    return [int(word) for word in text.split(",")]


def names_from(known):
    def names(text):
        for word in text.split(","):
            if word not in known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(known)}")
        return text.split(",")
    return names


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--dir", help="a folder on the disk that matters; a new folder in it is used and removed again")
    parser.add_argument("--ram", action="store_true", help="measure on a RAM-backed device too, made for the run (as root)")
    parser.add_argument("--sizes", type=sizes, metavar="LIST", help="of objects (64K,1M,16M,32M)")
    parser.add_argument("--in-flight", type=counts, metavar="LIST", help="objects in flight (1,16)")
    parser.add_argument("--modes", type=names_from(MODES), default=list(MODES), metavar="LIST",
                        help="of direct,cold,hot: direct I/O; page cache dropped before loads; page cache not dropped")
    parser.add_argument("--peers", type=names_from(peers.NAMES), default=list(peers.NAMES), metavar="LIST",
                        help="of " + ",".join(peers.NAMES))
    parser.add_argument("--pairs", type=int, help="turns of everybody a row (5)")
    parser.add_argument("--minutes", type=int, metavar="N", help="after so long no turn is begun, however few there were")
    parser.add_argument("--mb", type=int, help="MiB stored and loaded a run, at least one round (64)")
    parser.add_argument("--json", metavar="FILE", help="JSON lines (compare-results.jsonl)")
    parser.add_argument("--venv", metavar="DIR", default=os.path.join(peers.ROOT, "build-compare"),
                        help="the virtual environment with LMCache, NIXL and kvkeep; made there if it is not (build-compare)")
    parser.add_argument("--installed", action="store_true", help="take the kvkeep that is installed there, build none")
    parser.add_argument("--smoke", action="store_true", help="a moment of everything, with what is installed; ends with "
                        f"{SKIPPED} and a reason if there is no environment")
    args = parser.parse_args()
    if not args.dir and not args.ram and not args.smoke:
        parser.error("where? --dir DIR, --ram, or both")
    if any(value is not None and value < 1 for value in (args.pairs, args.mb, args.minutes)):
        parser.error("--pairs, --mb and --minutes are at least 1")
    args.sizes = args.sizes or ([64 * KIB, MIB] if args.smoke else [64 * KIB, MIB, 16 * MIB, 32 * MIB])
    args.in_flight = args.in_flight or ([4] if args.smoke else [1, 16])
    args.pairs = args.pairs or (1 if args.smoke else 5)
    args.mb = args.mb or (1 if args.smoke else 64)
    return args


class Row(collections.namedtuple("Row", "where folder mode size in_flight")):
    def name(self, operation=None):
        words = [self.where, self.mode, operation, report.size_text(self.size), f"x{self.in_flight}"]
        return "-".join(filter(None, words))


class Comparison:
    """The peers that run, what they answered, and the report that they write into."""

    def __init__(self, args, python, out):
        self.args = args
        self.python = python
        self.out = out
        self.running = {}
        self.runs = 0
        self.results = {}              # row -> [{peer: answer} of each turn]
        self.failed = {}               # (row, peer) -> why: it is asked no more

    def start(self):
        # All at once: each takes seconds to load torch.
        self.running = {name: peers.Peer(name, self.python) for name in self.args.peers}
        for name, peer in list(self.running.items()):
            self.out.line({"peer": name, "versions": peer.ready()})
            why = peer.why_not()
            if why:
                self.out.skip(name, why)
                self.running.pop(name).close()
        return next(iter(self.running.values())).versions if self.running else {}

    def close(self):
        for peer in self.running.values():
            peer.close()

    def go(self, row, name):
        """One run of one peer, or None if it failed, now or before."""
        if (row, name) in self.failed:
            return None
        objects = max(min(self.args.mb * MIB // row.size, 256), row.in_flight)
        rounds = objects // row.in_flight
        # A store's own memory is touched by the first of what goes through it: 0.1 to 0.2 s for kvkeep's 256 MiB.
        warmup = max(1, rounds // 8, min(32, WARM_BYTES // (row.in_flight * row.size)))
        self.runs += 1
        try:
            if self.running[name].process.poll() is not None:
                self.running[name].close()
                self.running[name] = peers.Peer(name, self.python)
                self.running[name].ready()
            return self.running[name].go(os.path.join(row.folder, f"{name}-{self.runs}"), row.mode == "direct",
                                         row.mode == "cold", row.size, row.in_flight, rounds, warmup)
        except programs.Failed as error:
            self.failed[row, name] = str(error)
            self.out.skip(f"{row.name()} {name}", str(error))
            return None

    def take_turns(self, rows):
        """Fills results. The first run of each process loads what LMCache loads late, and is not counted."""
        end_s = time.monotonic() + 60 * self.args.minutes if self.args.minutes else float("inf")
        for name in list(self.running):
            self.go(rows[0], name)
        for turn in range(self.args.pairs):
            for row in rows:
                if time.monotonic() >= end_s:
                    return
                answers = {name: self.go(row, name) for name in pairs.order(list(self.running), turn)}
                self.results.setdefault(row, []).append(answers)
                for name, answer in filter(lambda pair: pair[1], answers.items()):
                    self.out.line({"run": row.name(), "turn": turn, "peer": name, **answer})

    def tell(self, rows):
        """Judges the rows of a place, and returns those of the table of everybody."""
        everybody = []
        modes = {row.mode for row in rows}
        for row in rows:
            turns = self.results.get(row)
            if not turns:
                self.out.skip(row.name(), "no time was left for it")
                continue
            names = [name for name in self.args.peers if name in self.running and (row, name) not in self.failed]
            # What is stored through the page cache does not depend on what happens before the loads.
            for operation in ["load"] if row.mode == "cold" and "hot" in modes else ["store", "load"]:
                taken = {name: [turn[name][operation] for turn in turns] for name in names}
                self.judge(row.name(operation), row.mode, operation, row.size, row.in_flight, taken)
                everybody.append(line(row.name(operation), self.args.peers, taken))
        return everybody

    def judge(self, name, mode, operation, size, in_flight, taken):
        """Ours beside the best of the others, and beside nixl_store_dynamic."""
        best = best_of(taken)
        if not best:
            return
        through_cache = mode == "hot" or operation == "store" and mode != "direct"
        for peer in peers.OURS:
            if peer not in taken:
                continue
            for other in dict.fromkeys([best, "nixl_store_dynamic"]):
                if other not in taken:
                    continue
                mark = None
                if other == best:
                    mark = 0.75 if through_cache else 1.0
                if other == "nixl_store_dynamic":
                    nixl = 5.0 if size <= MIB else 1.3 if size == 16 * MIB and in_flight == 1 else None
                    mark = max(filter(None, (mark, nixl)), default=None)
                self.out.figure(f"{name}-{peer}", "beside " + ("the best" if other == best else "NIXL"),
                                pairs.ratio(list(zip(taken[peer], taken[other])), pairs.rate), at_least=mark,
                                ours=report.gb_per_s(middle(taken[peer], pairs.rate)),
                                beside=f"{report.gb_per_s(middle(taken[other], pairs.rate))}, {other}")


def best_of(taken):
    """The fastest of those that are not ours, or None."""
    theirs = [peer for peer in taken if peer not in peers.OURS]
    return max(theirs, key=lambda peer: middle(taken[peer], pairs.rate), default=None)


def line(name, everybody, taken):
    """A row of the table of everybody."""
    ratios = []
    for other in (best_of(taken), "nixl_store_dynamic"):
        for peer in peers.OURS:
            if peer in taken and other in taken:
                median, low, high = pairs.ratio(list(zip(taken[peer], taken[other])), pairs.rate)
                ratios.append(f"{report.number(median)} [{report.number(low)}-{report.number(high)}]")
            else:
                ratios.append("-")
    return [name, *(cell(taken.get(peer)) for peer in everybody), *ratios]


def columns(everybody):
    return ["", *everybody, *(f"{peer} / {other}" for other in ("best", "NIXL") for peer in peers.OURS)]


def middle(answers, figure):
    return statistics.median(figure(answer) for answer in answers)


def cell(answers):
    """GB/s / p50 of a round in ms / core-seconds a GB."""
    if not answers:
        return "-"
    return " / ".join(report.number(value) for value in (
        middle(answers, pairs.rate) / 1e9, middle(answers, pairs.p50) / 1e3, middle(answers, pairs.cpu_per_gb)))


def everywhere(comparison, args, folder):
    """Measures on the disk, on the RAM-backed device, or both."""
    places = {"disk": (folder, args.modes)} if folder else {}
    made = None
    if args.ram:
        try:
            made = device.RamDevice("loop", RAM_BYTES)
            places["ram"] = made.mount, [mode for mode in args.modes if mode in RAM_MODES]
        except device.Unavailable as error:
            comparison.out.skip("ram", str(error))
    try:
        rows = [Row(where, path, mode, size, in_flight) for where, (path, modes) in places.items()
                for mode in modes for size in args.sizes for in_flight in args.in_flight]
        if rows:
            comparison.take_turns(rows)
        for where in dict.fromkeys(row.where for row in rows):
            comparison.out.header()
            everybody = comparison.tell([row for row in rows if row.where == where])
            comparison.out.table(f"everybody-{where}", "GB/s / p50 of a round in ms / core-seconds a GB; ratios of GB/s",
                                 columns(args.peers), everybody)
    finally:
        if made:
            made.close()


def check_smoke(out, names):
    """The smoke run's own test: everybody who runs here gave figures, and ours were among them."""
    seen = {f["figure"].rsplit("-", 1)[1] for f in out.figures}
    for name in set(peers.OURS) & set(names) - seen:
        sys.exit(f"compare: no figure of {name}: {out.skipped}")


def main():
    args = parse()
    device.end_on_signals()
    try:
        python = peers.environment(os.path.abspath(args.venv), make=not args.smoke, fresh=not args.smoke and not args.installed)
    except peers.Missing as error:
        print(f"compare: {error}")
        sys.exit(SKIPPED if args.smoke else 1)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    where = args.dir or (memory if args.smoke and not args.ram else None)
    folder = tempfile.mkdtemp(prefix="kvkeep-compare-", dir=where) if where or args.smoke and not args.ram else None
    out = report.Report(args.json or (None if args.smoke else "compare-results.jsonl"), judge=not args.smoke)
    comparison = Comparison(args, python, out)
    try:
        about = {**report.machine(folder or "/"), **comparison.start()}
        out.line({"machine": about})
        print("\n".join(f"{key}: {value}" for key, value in about.items()) + "\n")
        everywhere(comparison, args, folder)
        out.close()
    except programs.Failed as error:
        sys.exit(f"compare: {error}")
    finally:
        comparison.close()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    if args.smoke:
        check_smoke(out, args.peers)


if __name__ == "__main__":
    main()
