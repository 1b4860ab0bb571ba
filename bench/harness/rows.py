# SPDX-License-Identifier: Apache-2.0
"""Each figure that has a mark to reach: what is run, beside what, and the mark."""

import os
import shutil
import statistics

from . import pairs as p
from .device import RamDevice, Unavailable
from .first_puts import first_puts
from .programs import Fio, Rounds, fio_path, lanes_of, link_keys, link_objects, run_command, run_once, store_spec
from .report import gb_per_s, number, size_text

KIB = 1 << 10
MIB = 1 << 20


class Settings:
    """How much of everything. The numbers of a full run; smoke() makes them tiny."""

    pairs = 9
    own_pairs = 3              # figures that are reported only
    seconds = 1.0
    choose_seconds = 0.4
    set_bytes = 1 << 30        # objects that are read
    put_bytes = 3 << 29        # objects that are put in a round
    hot_bytes = 512 * MIB
    small_keys = 4096          # objects of 64 KiB that are read
    small_puts = 4096
    sizes = (1 * MIB, 4 * MIB, 16 * MIB, 32 * MIB)
    alone_count = 200          # objects of 1 MiB, one after another
    first_puts = 128           # of a new store
    first_rest_s = 0.3         # behind an open, and behind the making of folders
    batches = 9
    batch_bytes = 32 * MIB
    in_flight = 16
    lookup_keys = 100_000
    lookup_rounds = 7
    many = 100_000             # objects in the directory that is opened
    opens = 31
    ram_bytes = 6 << 30
    choose = True              # fio's block size and depth, and its cost without I/O
    devices = True             # may make RAM-backed devices

    @classmethod
    def smoke(cls):
        tiny = cls()
        tiny.pairs = tiny.own_pairs = 1
        tiny.seconds = tiny.choose_seconds = 0.05
        tiny.set_bytes = tiny.put_bytes = tiny.hot_bytes = 8 * MIB
        tiny.small_keys = tiny.small_puts = 64
        tiny.sizes = (1 * MIB,)
        tiny.alone_count = 8
        tiny.first_puts = 8
        tiny.first_rest_s = 0.0
        tiny.batches = 2
        tiny.batch_bytes = 1 * MIB
        tiny.in_flight = 4
        tiny.lookup_keys = 256
        tiny.lookup_rounds = 2
        tiny.many = 256
        tiny.opens = 3
        tiny.choose = False
        tiny.devices = False
        return tiny


class Bench:
    """What every row needs: the programs, the places, the settings, the report."""

    def __init__(self, programs, folder, settings, report, engine=None, lanes=None):
        self.programs = programs
        self.folder = folder
        self.settings = settings
        self.report = report
        self.engine = engine
        self.lanes = lanes
        self.ram = None
        self.number = 0

    def place(self, where):
        return self.folder if where == "disk" else self.ram

    def fresh(self, where, name):
        """A new empty folder for one row, closed to others as a store wants it."""
        self.number += 1
        path = os.path.join(self.place(where), f"{name}-{self.number}")
        os.mkdir(path, 0o700)
        return path

    def store(self, path, direct, mode, *options, keeper=True, evicts=False):
        spec = store_spec(path, direct, self.lanes, self.engine, keeper=keeper, evicts=evicts)
        return [os.path.join(self.programs, "store_bench"), "--spec", spec, "--mode", mode, *options]

    def command(self, *arguments):
        return run_command([os.path.join(self.programs, "..", "cli", "kvkeep"), *arguments, "--json"])

    def plain(self, path, direct, mode, *options):
        argv = [os.path.join(self.programs, "plain_loop"), "--dir", path, "--mode", mode, *options]
        return argv + (["--direct"] if direct else [])

    def fill(self, path, size, keys, direct=True):
        run_once(self.store(path, direct, "put", "--object-bytes", size, "--count", keys, "--keep",
                            "--in-flight", self.settings.in_flight))


def _transfer_figures(bench, name, what, measured, target, detail, cpu_target=None):
    """The two figures of a row beside fio: rate, and CPU time a GB."""
    ours = p.median_of(measured, 0, p.rate)
    theirs = p.median_of(measured, 1, p.rate)
    detail = dict(detail, pairs=measured,
                  p50_us=statistics.median(a["p50_us"] for a, _ in measured),
                  p99_us=statistics.median(a["p99_us"] for a, _ in measured),
                  p999_us=statistics.median(a["p999_us"] for a, _ in measured))
    bench.report.figure(name, what, p.ratio(measured, p.rate), at_least=target, ours=gb_per_s(ours),
                        beside=f"{gb_per_s(theirs)}, {detail['fio']}", detail=detail)
    bench.report.figure(name + "-cpu", "core-seconds a GB more than fio",
                        p.difference(measured, p.cpu_per_gb), "s/GB", at_most=cpu_target,
                        ours=f"{p.median_of(measured, 0, p.cpu_per_gb):.3f} s/GB",
                        beside=f"{p.median_of(measured, 1, p.cpu_per_gb):.3f} s/GB")


def memories(where, settings):
    """(memory held?, pairs). The copy through the store's own memory shows only where the medium is fast."""
    return [(True, settings.pairs)] + ([(False, settings.own_pairs)] if where == "ram" else [])


def transfer_get(bench, where, size, target, cpu_target):
    """16 in flight, direct, beside fio reading the very same files."""
    s = bench.settings
    path = bench.fresh(where, "get")
    keys = max(s.set_bytes // size, s.in_flight)
    bench.fill(path, size, keys)
    fio = None
    for held, count in memories(where, s):
        name = f"{where}-get-{size_text(size)}" + ("" if held else "-own")
        options = ["--object-bytes", size, "--keys", keys, "--seconds", s.seconds,
                   "--in-flight", s.in_flight] + (["--held"] if held else [])
        with Rounds(bench.store(path, True, "get", *options)) as ours:
            if not fio:
                jobs = lanes_of(ours.ready)
                links = bench.fresh(where, "links")
                files = link_objects(path, links, jobs, size)
                fio = Fio(links, False, size, jobs, True)
                if s.choose:
                    fio.choose(files, s.choose_seconds)
            measured = p.alternate(count, ours.go, lambda: fio.round(files, s.seconds))
        what = "verified get" + ("" if held else ", the store's own memory")
        _transfer_figures(bench, name, what, measured, target if held else None,
                          {"fio": fio.name()}, cpu_target if held else None)
    shutil.rmtree(links)
    shutil.rmtree(path)


def transfer_put(bench, where, size, target, cpu_target):
    """16 in flight, direct, beside fio making one new file an object."""
    s = bench.settings
    path = bench.fresh(where, "put")
    files_path = bench.fresh(where, "fio")
    count = max(s.put_bytes // size, s.in_flight)
    fio = None
    first = 0
    for held, pairs in memories(where, s):
        name = f"{where}-put-{size_text(size)}" + ("" if held else "-own")
        options = ["--object-bytes", size, "--count", count, "--in-flight", s.in_flight,
                   "--first", first] + (["--held"] if held else [])
        with Rounds(bench.store(path, True, "put", *options)) as ours:
            if not fio:
                fio = Fio(files_path, True, size, lanes_of(ours.ready), True)
                if s.choose:
                    fio.choose(max(count // 3, s.in_flight), s.choose_seconds)
            measured = p.alternate(pairs, ours.go, lambda: fio.round(count, s.seconds))
        first += count * (pairs + 1)
        what = "put with footer, sums, publish" + ("" if held else ", the store's own memory")
        _transfer_figures(bench, name, what, measured, target if held else None,
                          {"fio": fio.name()}, cpu_target if held else None)
    shutil.rmtree(files_path)
    shutil.rmtree(path)


def small_get(bench):
    """64 KiB, direct, beside fio's 64 KiB random reads of the same files."""
    s = bench.settings
    size = 64 * KIB
    path = bench.fresh("ram", "small")
    bench.fill(path, size, s.small_keys)
    with Rounds(bench.store(path, True, "get", "--object-bytes", size, "--keys", s.small_keys,
                            "--seconds", s.seconds, "--in-flight", s.in_flight, "--held",
                            "--random")) as ours:
        links = bench.fresh("ram", "links")
        jobs = lanes_of(ours.ready)
        files = link_objects(path, links, jobs, size)
        fio = Fio(links, False, size, jobs, True, random=True)
        fio.block_bytes, fio.depth = size, max(1, s.in_flight // jobs)
        measured = p.alternate(s.pairs, ours.go, lambda: fio.round(files, s.seconds))
    _transfer_figures(bench, "ram-get-64K", "verified get, random", measured, 0.4,
                      {"fio": fio.name()})
    shutil.rmtree(links)
    shutil.rmtree(path)


def small_put(bench):
    """64 KiB, direct: objects per core-second, beside the plain loop."""
    s = bench.settings
    size = 64 * KIB
    path = bench.fresh("ram", "small")
    plain_path = bench.fresh("ram", "plain")
    with Rounds(bench.store(path, True, "put", "--object-bytes", size, "--count", s.small_puts,
                            "--in-flight", s.in_flight, "--held")) as ours:
        threads = lanes_of(ours.ready)
        with Rounds(bench.plain(plain_path, True, "put", "--object-bytes", size,
                                "--count", s.small_puts, "--threads", threads,
                                "--buffers", s.in_flight)) as theirs:
            measured = p.alternate(s.pairs, ours.go, theirs.go)
    bench.report.figure("ram-put-64K", "objects a core-second, beside the plain loop",
                        p.ratio(measured, p.objects_per_cpu), at_least=0.8,
                        ours=number(p.median_of(measured, 0, p.objects_per_cpu)),
                        beside=number(p.median_of(measured, 1, p.objects_per_cpu)),
                        detail={"pairs": measured, "threads": threads})
    shutil.rmtree(plain_path)
    shutil.rmtree(path)


def hot_get(bench, size):
    """Buffered, everything in the page cache, as many threads as lanes."""
    s = bench.settings
    path = bench.fresh("disk", "hot")
    plain_path = bench.fresh("disk", "plain")
    keys = max(s.hot_bytes // size, s.in_flight)
    bench.fill(path, size, keys, direct=False)
    link_keys(path, plain_path)
    with Rounds(bench.store(path, False, "get", "--object-bytes", size, "--keys", keys, "--held",
                            "--seconds", s.seconds, "--in-flight", s.in_flight)) as ours:
        threads = lanes_of(ours.ready)
        with Rounds(bench.plain(plain_path, False, "get", "--object-bytes", size, "--keys", keys,
                                "--seconds", s.seconds, "--threads", threads,
                                "--buffers", s.in_flight)) as theirs:
            measured = p.alternate(s.pairs, ours.go, theirs.go)
    bench.report.figure(f"hot-get-{size_text(size)}", "verified get, buffered, beside the plain loop",
                        p.ratio(measured, p.rate), at_least=0.75,
                        ours=gb_per_s(p.median_of(measured, 0, p.rate)),
                        beside=f"{gb_per_s(p.median_of(measured, 1, p.rate))}, {threads} threads",
                        detail={"pairs": measured})
    shutil.rmtree(plain_path)
    shutil.rmtree(path)


def hot_put(bench, size):
    """Buffered: no disk limits it, but what is written back meanwhile. As many threads as lanes."""
    s = bench.settings
    path = bench.fresh("disk", "hot")
    plain_path = bench.fresh("disk", "plain")
    count = max(s.hot_bytes // size, s.in_flight)
    first = 0
    for held in (True, False):
        options = ["--object-bytes", size, "--count", count]
        with Rounds(bench.store(path, False, "put", *options, "--in-flight", s.in_flight, "--first", first,
                                *(["--held"] if held else []))) as ours:
            threads = lanes_of(ours.ready)
            with Rounds(bench.plain(plain_path, False, "put", *options, "--threads", threads,
                                    "--buffers", s.in_flight)) as theirs:
                measured = p.alternate(s.pairs, ours.go, theirs.go)
        first += count * (s.pairs + 1)
        name = f"hot-put-{size_text(size)}" + ("" if held else "-own")
        what = "put, buffered, beside the plain loop" + ("" if held else ", the store's own memory")
        bench.report.figure(name, what, p.ratio(measured, p.rate), at_least=0.75 if held else None,
                            ours=gb_per_s(p.median_of(measured, 0, p.rate)),
                            beside=f"{gb_per_s(p.median_of(measured, 1, p.rate))}, {threads} threads",
                            detail={"pairs": measured})
        bench.report.figure(name + "-cpu", "core-seconds a GB more than the plain loop",
                            p.difference(measured, p.cpu_per_gb), "s/GB",
                            ours=f"{p.median_of(measured, 0, p.cpu_per_gb):.3f} s/GB",
                            beside=f"{p.median_of(measured, 1, p.cpu_per_gb):.3f} s/GB")
    shutil.rmtree(plain_path)
    shutil.rmtree(path)


def hot_one(bench, mode):
    """64 KiB, buffered, one at a time, told by the event as an engine is: what it costs to ask and to be answered."""
    s = bench.settings
    size = 64 * KIB
    path = bench.fresh("disk", "one")
    plain_path = bench.fresh("disk", "plain")
    keys = s.small_puts
    common = ["--object-bytes", size, "--count", keys]
    if mode == "get":
        bench.fill(path, size, keys, direct=False)
        run_once(bench.plain(plain_path, False, "put", *common, "--keep"))
        common += ["--keys", keys]
    with Rounds(bench.store(path, False, mode, *common, "--in-flight", 1)) as ours, \
         Rounds(bench.plain(plain_path, False, mode, *common)) as theirs:
        measured = p.alternate(s.pairs, ours.go, theirs.go)
    name = f"hot-{mode}-64K"
    bench.report.figure(name, "one at a time, p50 beside the plain loop's", p.ratio(measured, p.p50),
                        ours=f"p50 {p.median_of(measured, 0, p.p50):,.0f} us",
                        beside=f"p50 {p.median_of(measured, 1, p.p50):,.0f} us", detail={"pairs": measured})
    bench.report.figure(name + "-cpu", "CPU time an object more than the plain loop",
                        p.difference(measured, p.cpu_us), "us",
                        ours=f"{p.median_of(measured, 0, p.cpu_us):.1f} us",
                        beside=f"{p.median_of(measured, 1, p.cpu_us):.1f} us")
    shutil.rmtree(plain_path)
    shutil.rmtree(path)


def alone_name(mode, direct, held):
    return f"alone-{mode}-" + ("direct" if direct else "buffered") + ("" if held else "-own")


def alone(bench, mode, direct, held, target):
    """One object of 1 MiB, nothing else in flight: the middle latency beside the plain loop's."""
    s = bench.settings
    size = 1 * MIB
    path = bench.fresh("disk", "alone")
    plain_path = bench.fresh("disk", "plain")
    common = ["--object-bytes", size, "--count", s.alone_count]
    if mode == "get":
        bench.fill(path, size, s.alone_count, direct)
        link_keys(path, plain_path)
        common += ["--keys", s.alone_count]
    memory = ["--held"] if held else []
    with Rounds(bench.store(path, direct, mode, *common, "--blocking", *memory)) as ours, \
         Rounds(bench.plain(plain_path, direct, mode, *common)) as theirs:
        measured = p.alternate(s.pairs, ours.go, theirs.go)
    words = []
    for side in (0, 1):
        words.append("p50 {:,.0f} us, p99 {:,.0f} us".format(
            p.median_of(measured, side, p.p50),
            p.median_of(measured, side, lambda figures: figures["p99_us"])))
    bench.report.figure(alone_name(mode, direct, held),
                        "one object of 1 MiB, p50 beside the plain loop's",
                        p.ratio(measured, p.p50), at_most=target, ours=words[0], beside=words[1],
                        detail={"pairs": measured})
    shutil.rmtree(plain_path)
    shutil.rmtree(path)


def batch(bench):
    """One get of 16 objects of 32 MiB: when is each one there?"""
    s = bench.settings
    path = bench.fresh("disk", "batch")
    keys = 2 * s.in_flight
    bench.fill(path, s.batch_bytes, keys)
    with Rounds(bench.store(path, True, "batch", "--object-bytes", s.batch_bytes, "--keys", keys,
                            "--in-flight", s.in_flight, "--held")) as ours:
        ours.go()
        rounds = [ours.go() for _ in range(s.batches)]
    whole = statistics.median(r["wall_s"] for r in rounds) * 1e3
    bench.report.figure("batch-mean", "16 x 32 MiB in one get: mean time to an object / whole",
                        p.spread(r["mean_part"] for r in rounds), at_most=0.6,
                        ours=f"whole {whole:.0f} ms", detail={"rounds": rounds})
    bench.report.figure("batch-first", "the same: first object / whole",
                        p.spread(r["first_part"] for r in rounds), at_most=0.15)
    shutil.rmtree(path)


def many_device(objects):
    """zram: very many footers take next to no memory there."""
    return RamDevice("zram", (8 << 30) + objects * 12288, inodes=objects + 65536)


def _many_place(bench, objects):
    """A device for very many objects, or None: then the given folder with fewer objects has to do."""
    if not bench.settings.devices:
        return None
    try:
        return many_device(objects)
    except Unavailable:
        return None


def _fill_small(bench, path, keys):
    bench.fill(path, 4 * KIB, 64)
    run_once([os.path.join(bench.programs, "sparse_objects"), path, 4 * KIB, 64, keys - 64])


def lookups(bench, path, keys, count):
    """count rounds of each: keys known to memory, and unknown to it."""
    s = bench.settings
    options = ["--keys", keys, "--batch", 64]
    figures = []
    for mode, more in (("lookup", ["--seconds", s.seconds]), ("secondary", [])):
        # A keeper would make the keys known while they are looked up, and its scan is not a lookup's CPU time.
        with Rounds(bench.store(path, True, mode, *options, *more, keeper=mode == "lookup")) as ours:
            rounds = [ours.go() for _ in range(count)]
        figures.append(rounds)
    return figures


def lookup_row(bench):
    s = bench.settings
    device = _many_place(bench, s.lookup_keys)
    where = device.mount if device else bench.fresh("disk", "lookup")
    path = os.path.join(where, "store")
    os.mkdir(path, 0o700)
    keys = s.lookup_keys if device else min(s.lookup_keys, 10_000)
    _fill_small(bench, path, keys)
    memory, medium = lookups(bench, path, keys, s.lookup_rounds)
    for name, what, rounds, target, hits in (
            ("lookup-memory", "keys a second and core, in memory", memory, 2e6, "memory_hits"),
            ("lookup-medium", "keys a second and core, unknown in memory", medium, 60e3, "medium_hits")):
        wall = statistics.median(r["ops_per_s"] for r in rounds)
        # What the store itself says of where the answers came from: else the row is not what it is called.
        share = min(r[hits] / r["objects"] for r in rounds)
        bench.report.figure(name, what, p.spread(r["keys_per_cpu_s"] for r in rounds), at_least=target,
                            ours=f"{number(wall)} a second, {number(float(keys))} keys",
                            beside=f"{100 * share:.0f} % so answered",
                            detail={"rounds": rounds})
    if device:
        device.close()
    else:
        shutil.rmtree(where)


def first_object(bench, path, objects, opens):
    """Rounds of open, get one object of 1 MiB. The objects that are read are real, the rest sparse."""
    real = min(64, objects // 2)
    bench.fill(path, 1 * MIB, real)
    run_once([os.path.join(bench.programs, "sparse_objects"), path, 1 * MIB, real, objects - real])
    with Rounds(bench.store(path, True, "first", "--object-bytes", 1 * MIB, "--keys", real)) as ours:
        ours.go()
        return [ours.go() for _ in range(opens)]


def first_row(bench):
    s = bench.settings
    device = _many_place(bench, s.many)
    where = device.mount if device else bench.fresh("disk", "many")
    path = os.path.join(where, "store")
    os.mkdir(path, 0o700)
    objects = s.many if device else min(s.many, 10_000)
    rounds = first_object(bench, path, objects, s.opens)
    opened = statistics.median(r["open_us"] for r in rounds) / 1e3
    bench.report.figure("first-object", f"open to first object, {number(float(objects))} objects of 1 MiB",
                        p.spread(r["wall_s"] * 1e3 for r in rounds), "ms", at_most=20,
                        ours=f"of it open {opened:.1f} ms", detail={"rounds": rounds})
    if device:
        device.close()
    else:
        shutil.rmtree(where)


def all_rows(settings):
    """(name, wants fio, wants the RAM-backed device, function of bench) of every row, in order."""
    rows = []
    for where, get_target, put_target in (("disk", 0.95, 0.90), ("ram", 0.70, 0.70)):
        for size in settings.sizes:
            rows.append((f"{where}-get-{size_text(size)}", True, where == "ram",
                         lambda b, w=where, z=size, t=get_target: transfer_get(b, w, z, t, 0.08)))
            rows.append((f"{where}-put-{size_text(size)}", True, where == "ram",
                         lambda b, w=where, z=size, t=put_target: transfer_put(b, w, z, t, 0.10)))
    rows.append(("ram-get-64K", True, True, small_get))
    rows.append(("ram-put-64K", False, True, small_put))
    for size in settings.sizes[1:] or settings.sizes:
        rows.append((f"hot-get-{size_text(size)}", False, False, lambda b, z=size: hot_get(b, z)))
    for size in settings.sizes[:1] + settings.sizes[2:3]:
        rows.append((f"hot-put-{size_text(size)}", False, False, lambda b, z=size: hot_put(b, z)))
    for mode in ("get", "put"):
        rows.append((f"hot-{mode}-64K", False, False, lambda b, m=mode: hot_one(b, m)))
    for mode, direct, held, target in (("get", True, True, 1.15), ("put", True, True, 1.15),
                                       ("get", False, True, 2.0), ("get", False, False, None),
                                       ("put", False, True, 1.4), ("put", False, False, None)):
        rows.append((alone_name(mode, direct, held), False, False,
                     lambda b, m=mode, d=direct, h=held, t=target: alone(b, m, d, h, t)))
    for where in ("disk", "ram"):
        for size, in_flight in ((64 * KIB, 1), (1 * MIB, settings.in_flight)):
            rows.append((f"first-puts-{where}-{size_text(size)}", False, where == "ram",
                         lambda b, w=where, z=size, n=in_flight: first_puts(b, w, z, n)))
    rows.append(("batch", False, False, batch))
    rows.append(("lookup", False, False, lookup_row))
    rows.append(("first-object", False, False, first_row))
    return rows


def run_rows(bench, rows):
    have_fio = fio_path() is not None
    for name, wants_fio, wants_ram, function in rows:
        if wants_fio and not have_fio:
            bench.report.skip(name, "fio is not installed")
        elif wants_ram and not bench.ram:
            bench.report.skip(name, "no RAM-backed device")
        else:
            function(bench)
