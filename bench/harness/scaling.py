# SPDX-License-Identifier: Apache-2.0
"""How cost grows: with the size of an object, with their number, with how many are in flight."""

import os
import shutil
import statistics
import time

from .device import Unavailable
from .programs import CAP_GB, Rounds, run_all, run_once
from .report import size_text
from .rows import KIB, MIB, first_object, lookups, many_device


def _middle(rounds, figure):
    return statistics.median(r[figure] for r in rounds)


def _three(bench, argv):
    """The middle one of three rounds, by rate."""
    rounds = [run_once(argv) for _ in range(3)]
    return sorted(rounds, key=lambda r: r["bytes_per_s"])[1]


def _put_and_get(bench, where, size, in_flight, total_bytes):
    path = bench.fresh(where, "scale")
    count = max(total_bytes // size, in_flight)
    common = ["--object-bytes", size, "--in-flight", in_flight, "--held"]
    put = _three(bench, bench.store(path, True, "put", *common, "--count", count))
    bench.fill(path, size, count)
    get = _three(bench, bench.store(path, True, "get", *common, "--keys", count,
                                    "--seconds", bench.settings.seconds))
    shutil.rmtree(path)
    return put, get


def _cells(figures):
    gigabytes = figures["objects"] * figures["object_bytes"] / 1e9
    return [figures["bytes_per_s"] / 1e9, figures["ops_per_s"],
            figures["cpu_s"] * 1e6 / figures["objects"], figures["cpu_s"] / gigabytes,
            figures["p50_us"], figures["p99_us"]]


UNITS = ["GB/s", "objects/s", "CPU us/object", "CPU s/GB", "p50 us", "p99 us"]


def by_size(bench, sizes):
    where = "ram" if bench.ram else "disk"
    rows = []
    for size in sizes:
        total = min(bench.settings.put_bytes, max(64 * MIB, 4096 * size))
        put, get = _put_and_get(bench, where, size, bench.settings.in_flight, total)
        rows.append([size_text(size), "get", *_cells(get)])
        rows.append([size_text(size), "put", *_cells(put)])
    bench.report.table("by-size", f"Size of an object ({where}, direct, held, "
                       f"{bench.settings.in_flight} in flight)", ["size", "", *UNITS], rows)


def by_depth(bench, depths):
    rows = []
    for where in ["ram", "disk"] if bench.ram else ["disk"]:
        for depth in depths:
            put, get = _put_and_get(bench, where, 1 * MIB, depth, bench.settings.put_bytes // 2)
            rows.append([where, depth, "get", *_cells(get)])
            rows.append([where, depth, "put", *_cells(put)])
    bench.report.table("by-depth", "Objects of 1 MiB in flight (direct, held)",
                       ["on", "in flight", "", *UNITS], rows)


def by_number(bench, name, numbers):
    rows = []
    for objects in numbers:
        try:
            device = many_device(objects)
        except Unavailable as error:
            bench.report.skip(name, str(error))
            continue
        with device:
            path = os.path.join(device.mount, "store")
            os.mkdir(path, 0o700)
            first = first_object(bench, path, objects, 9)
            memory, medium = lookups(bench, path, objects, 7 if objects < 1_000_000 else 2)
            rows.append([objects, _middle(first, "open_us") / 1e3, _middle(first, "wall_s") * 1e3,
                         _middle(memory, "keys_per_cpu_s"), _middle(medium, "keys_per_cpu_s"),
                         _middle(medium, "ops_per_s")])
    if rows:
        bench.report.table(name, "Number of objects (1 MiB logical, zram, nothing known in memory at open)",
                           ["objects", "open ms", "first object ms", "lookups in memory /s core",
                            "lookups on the medium /s core", "the same /s"], rows)


def restart(bench, name, objects, rounds):
    """A first pass over all names beside a plain one, then footers, a clean close and its snapshot."""
    device = None
    try:
        device = many_device(objects) if bench.settings.devices else None
    except Unavailable as error:
        bench.report.skip(name, str(error))
        return
    try:
        path = os.path.join(device.mount, "store") if device else bench.fresh("disk", "restart")
        os.makedirs(path, 0o700, exist_ok=True)
        run_once([os.path.join(bench.programs, "sparse_objects"), path, 4 * KIB, 0, objects])
        *pairs, known = run_all([os.path.join(bench.programs, "scan_rate"), path, rounds])
    finally:
        if device:
            device.close()
    ratios = sorted(pair["plain_s"] / pair["scan_s"] for pair in pairs)
    where = "zram" if device else "the disk"
    bench.report.table(name, f"A store without a snapshot is opened ({where}; the plain pass is readdir and statx in as many "
                       "threads)", ["objects", "plain pass s", "first pass s", "plain / first", "range", "all known s", "close s",
                                            "known from the snapshot s", "bytes an object"],
                       [[objects, _middle(pairs, "plain_s"), _middle(pairs, "scan_s"), statistics.median(ratios),
                         f"{ratios[0]:.2f}-{ratios[-1]:.2f}", known["all_known_s"], known["close_s"],
                         known["from_snapshot_s"], known["bytes_per_object"]]])


def _used(bench, path):
    return bench.command("df", path, "--quick")["used_bytes"]


def evicting(bench, pairs):
    """Loads of what is in use, alone and while the same process evicts what is not, down to a cap that was lowered."""
    s = bench.settings
    path = bench.fresh("disk", "evicting")
    size, cold_size = 4 * MIB, min(32 * MIB, s.put_bytes // 4)
    keys, cold = max(s.set_bytes // 4 // size, 2), s.put_bytes // cold_size
    bench.fill(path, size, keys)
    rounds = []
    with Rounds(bench.store(path, True, "get", "--object-bytes", size, "--keys", keys, "--seconds", s.seconds,
                            "--in-flight", 4, "--held", evicts=True)) as reader:
        for number in range(pairs + 1):
            run_once(bench.store(path, True, "put", "--object-bytes", cold_size, "--count", cold, "--keep",
                                 "--first", 1_000_000 * (number + 1), "--in-flight", s.in_flight, evicts=True))
            alone = reader.go()            # these are used later than those that were just put
            before = _used(bench, path)
            bench.command("cap", path, 2 * keys * size)
            until = time.monotonic() + 10
            while _used(bench, path) == before and time.monotonic() < until:
                time.sleep(0.001)
            start, began = _used(bench, path), time.monotonic()
            beside = reader.go()
            beside["evicted_per_s"] = (start - _used(bench, path)) / (time.monotonic() - began)
            while _used(bench, path) > 2 * keys * size and time.monotonic() < until:
                time.sleep(0.01)
            bench.command("cap", path, f"{CAP_GB}GiB")
            if number > 0:
                rounds.append((alone, beside))
    rows = []
    for figure, unit in (("bytes_per_s", 1e9), ("p50_us", 1), ("p99_us", 1)):
        ratios = sorted(b[figure] / a[figure] for a, b in rounds)
        rows.append([{"bytes_per_s": "GB/s", "p50_us": "p50 us", "p99_us": "p99 us"}[figure],
                     statistics.median(a[figure] / unit for a, _ in rounds),
                     statistics.median(b[figure] / unit for _, b in rounds), statistics.median(ratios),
                     f"{ratios[0]:.2f}-{ratios[-1]:.2f}"])
    gone = statistics.median(b["evicted_per_s"] / 1e9 for _, b in rounds)
    shutil.rmtree(path)
    bench.report.table("evicting", f"Loads of {size_text(size)} (4 in flight, direct, held) while the same process evicts "
                       f"objects of {size_text(cold_size)}, {gone:.2f} GB/s meanwhile",
                       ["", "alone", "while it evicts", "ratio", "range"], rows)


def all_tables(smoke):
    if smoke:
        return [("by-size", lambda b: by_size(b, [4 * KIB])),
                ("by-depth", lambda b: by_depth(b, [2])),
                ("restart", lambda b: restart(b, "restart", 500, 2)),
                ("evicting", lambda b: evicting(b, 1))]
    return [("by-size", lambda b: by_size(b, [4 * KIB << (2 * i) for i in range(8)])),
            ("by-depth", lambda b: by_depth(b, [1, 2, 4, 8, 16, 32, 64])),
            ("by-number", lambda b: by_number(b, "by-number", [1000, 10_000, 100_000])),
            ("restart", lambda b: restart(b, "restart", 100_000, 9)),
            ("evicting", lambda b: evicting(b, 9)),
            # Tables of their own, since making and unmounting a million files takes minutes.
            ("million", lambda b: by_number(b, "million", [1_000_000])),
            ("million-restart", lambda b: restart(b, "million-restart", 1_000_000, 9))]
