# SPDX-License-Identifier: Apache-2.0
"""The first puts of a new store, which make its 256 folders: what it would bring to have them made ahead."""

import os
import shutil
import threading
import time

from . import pairs as p
from .programs import Rounds
from .report import size_text

FOLDERS = 256
FOLDER_MODE = 0o700


def make_folders(path):
    """Those that the store's own puts have not made yet."""
    for number in range(FOLDERS):
        try:
            os.mkdir(os.path.join(path, f"{number:02x}"), FOLDER_MODE)
        except FileExistsError:
            pass


def in_new_store(bench, where, options, rest_s, make=None):
    """One round of puts in a store that was just made. The rest, with nothing made in it, lets the open's own work end."""
    path = bench.fresh(where, "first-puts")
    with Rounds(bench.store(path, False, "put", *options, "--keep", keeper=True)) as store:
        time.sleep(rest_s)
        if make == "ahead":
            make_folders(path)
            time.sleep(rest_s)
        maker = threading.Thread(target=make_folders, args=(path,))
        if make == "meanwhile":
            maker.start()
        figures = store.go()
        if make == "meanwhile":
            maker.join()
    shutil.rmtree(path)
    return figures


def first_puts(bench, where, size, in_flight):
    """Of each pair one store makes its folders as it needs them, as it does; of the other they are made by somebody else."""
    s = bench.settings
    options = ["--object-bytes", size, "--count", s.first_puts, "--in-flight", in_flight]
    if where == "ram" and not s.devices:
        bench.report.skip(f"first-puts-{where}-{size_text(size)}", "without devices all places are one")
        return
    for make, what in (("ahead", "folders there before the first put"), ("meanwhile", "folders made behind the puts")):
        measured = p.alternate(s.pairs, lambda m=make: in_new_store(bench, where, options, s.first_rest_s, m),
                               lambda: in_new_store(bench, where, options, s.first_rest_s))
        name = f"first-puts-{where}-{size_text(size)}-{make}"
        for part, value, unit in (("p50", p.p50, "us"), ("whole", lambda f: f["wall_s"] * 1e3, "ms")):
            bench.report.figure(f"{name}-{part}", what, p.ratio(measured, value),
                                ours=f"{p.median_of(measured, 0, value):,.0f} {unit}",
                                beside=f"{p.median_of(measured, 1, value):,.0f} {unit}", detail={"pairs": measured})
        bench.report.figure(f"{name}-cpu", "CPU time an object more than where puts make them",
                            p.difference(measured, p.cpu_us), "us",
                            ours=f"{p.median_of(measured, 0, p.cpu_us):.0f} us",
                            beside=f"{p.median_of(measured, 1, p.cpu_us):.0f} us")
