# SPDX-License-Identifier: Apache-2.0
"""Figures, as a table for people and as JSON lines for programs."""

import json
import os
import platform
import subprocess
import time


class Report:
    def __init__(self, json_path, judge):
        self.file = open(json_path, "w", encoding="utf-8") if json_path else None
        self.judge = judge                 # False: the run was too short to say reached or not
        self.figures = []
        self.tables = []
        self.skipped = []

    def line(self, record):
        if self.file:
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()

    def figure(self, name, what, value, unit="", at_least=None, at_most=None, ours="", beside="",
               detail=None):
        """value: (median, smallest, largest). ours, beside: what both sides reached, in words."""
        median, low, high = value
        reached = None
        if at_least is not None:
            reached = median >= at_least
        elif at_most is not None:
            reached = median <= at_most
        record = {"figure": name, "what": what, "median": median, "low": low, "high": high,
                  "unit": unit, "at_least": at_least, "at_most": at_most,
                  "reached": reached if self.judge else None,
                  "ours": ours, "beside": beside, "detail": detail or {}}
        self.figures.append(record)
        self.line(record)
        print(self._row(record), flush=True)

    def skip(self, name, why):
        self.skipped.append((name, why))
        self.line({"skipped": name, "why": why})
        print(f"| {name} | skipped: {why} | | | | |", flush=True)

    def table(self, name, what, columns, rows):
        """A table of its own, for how cost grows with something."""
        self.tables.append((name, what, columns, rows))
        self.line({"table": name, "what": what, "columns": columns, "rows": rows})
        print(f"\n{what}\n", flush=True)
        print("| " + " | ".join(columns) + " |")
        print("|" + "---|" * len(columns))
        for row in rows:
            print("| " + " | ".join(number(cell) for cell in row) + " |")
        print(flush=True)

    def header(self):
        print("| figure | kvkeep | beside it | median [range] | to reach | reached |")
        print("|---|---|---|---|---|---|", flush=True)

    def _row(self, record):
        target = ""
        if record["at_least"] is not None:
            target = f">= {number(record['at_least'])}"
        elif record["at_most"] is not None:
            target = f"<= {number(record['at_most'])}"
        unit = f" {record['unit']}" if record["unit"] else ""
        word = "" if record["reached"] is None else ("yes" if record["reached"] else "**no**")
        return (f"| {record['figure']}: {record['what']} | {record['ours']} | {record['beside']} | "
                f"{number(record['median'])} [{number(record['low'])}-{number(record['high'])}]{unit} | "
                f"{target} | {word} |")

    def close(self):
        judged = [f for f in self.figures if f["reached"] is not None]
        if judged:
            reached = sum(f["reached"] for f in judged)
            print(f"\n{reached} of {len(judged)} figures reached")
        for name, why in self.skipped:
            print(f"skipped {name}: {why}")
        if self.file:
            self.file.close()


def number(value):
    """Three digits that matter; no exponents."""
    if isinstance(value, str):
        return value
    if value is None:
        return "-"
    magnitude = abs(value)
    if magnitude >= 1e6:
        return f"{value / 1e6:.2f} M"
    if magnitude >= 1000:
        return f"{value:,.0f}"
    if magnitude >= 100 or value == int(value):
        return f"{value:.0f}"
    if magnitude >= 10:
        return f"{value:.1f}"
    if magnitude >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}"


def size_text(size):
    for shift, unit in ((20, "M"), (10, "K")):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def gb_per_s(figures):
    return f"{figures / 1e9:.2f} GB/s"


def _first_line(path, key):
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if line.startswith(key):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "?"


def _file_system(path):
    """Type and options of the file system that path lies on."""
    path = os.path.realpath(path)
    best = ("", "?", "?")
    with open("/proc/mounts", encoding="utf-8") as file:
        for line in file:
            _, mount, kind, options = line.split()[:4]
            mount = mount.encode().decode("unicode_escape")
            inside = path == mount or path.startswith(mount.rstrip("/") + "/")
            if inside and len(mount) >= len(best[0]):
                best = (mount, kind, options)
    return f"{best[1]} ({best[2]})"


def _output(argv, cwd=None):
    try:
        return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              cwd=cwd).stdout.strip()
    except OSError:
        return ""


def machine(folder):
    """What a reader must know to place the figures."""
    here = os.path.dirname(os.path.abspath(__file__))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "cpu": _first_line("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _first_line("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "file_system": _file_system(folder),
        "fio": _output(["fio", "--version"]) or "not there",
        "commit": _output(["git", "describe", "--always", "--dirty"], cwd=here) or "?",
    }
