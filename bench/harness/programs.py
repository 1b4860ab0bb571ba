# SPDX-License-Identifier: Apache-2.0
"""The programs that are compared, each behind the same face: a round gives a dict of figures.

Every dict has objects, bytes, wall_s, cpu_s and bytes_per_s; those of our own programs have percentiles too.
"""

import json
import os
import re
import resource
import shutil
import subprocess
import sys


class Failed(Exception):
    """A program ended badly: its figures are worth nothing."""


def fio_path():
    return shutil.which("fio")


CAP_GB = 64


def store_spec(path, direct, lanes=None, engine=None, keeper=True, evicts=False):
    """The specification of a store, as kvkeep(7) describes it. Without a keeper nothing is scanned behind the figures."""
    spec = {
        "type": "nixl_store_dynamic",
        "backend": "POSIX",
        "backend_params": {
            "file_path": path,
            "use_direct_io": direct,
            "max_capacity_gb": CAP_GB,
        },
    }
    if not keeper:
        spec["keeper"] = False
    if evicts:
        spec["eviction"] = {"eviction_policy": "LRU"}
    if lanes:
        spec["lanes"] = lanes
    if engine:
        spec["io_engine"] = engine
    return json.dumps(spec)


class Rounds:
    """A program of ours that makes a round each time it is told to (--go)."""

    def __init__(self, argv):
        self.argv = [str(a) for a in argv]
        self.process = subprocess.Popen(self.argv + ["--go"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.ready = self._line()
        medium = self.ready.get("status", {}).get("medium", {})
        if medium.get("direct_io_asked") and not medium["direct_io"]:
            print(f"note: no direct I/O: {medium['direct_io_note']}", file=sys.stderr)

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.stdin.close()
            raise Failed(f"{' '.join(self.argv)}: exit {self.process.wait()}")
        return json.loads(line)

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        figures = self._line()
        figures["bytes"] = figures["objects"] * figures["object_bytes"]
        return figures

    def close(self):
        self.process.stdin.close()
        code = self.process.wait()
        if code:
            raise Failed(f"{' '.join(self.argv)}: exit {code}")

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is None:
            self.close()
        elif self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def run_all(argv):
    """Runs a program of ours to its end and returns all its rounds."""
    argv = [str(a) for a in argv]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(argv)}: exit {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def run_once(argv):
    """Runs a program of ours to its end and returns its last round."""
    lines = run_all(argv)
    return lines[-1] if lines else {}


def run_command(argv):
    """Runs the kvkeep command to its end and returns the one value it prints."""
    done = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(str(a) for a in argv)}: exit {done.returncode}")
    return json.loads(done.stdout)


def lanes_of(ready):
    """How many lanes a store has, from the status that store_bench prints when it is ready."""
    return ready["status"]["agent"]["lanes"]


class Fio:
    """fio over one file an object: reads files that are there, or makes each one new."""

    def __init__(self, folder, put, object_bytes, jobs, direct, random=False):
        self.folder = folder
        self.put = put
        self.object_bytes = object_bytes
        self.jobs = jobs
        self.direct = direct
        self.random = random
        self.block_bytes = object_bytes
        self.depth = 1
        self.idle_cpu_s = 0.0

    def name(self):
        return f"fio bs={self.block_bytes // 1024}k depth={self.depth} jobs={self.jobs}"

    def _argv(self, files, runtime_ms):
        argv = [
            "fio", "--name=bench", f"--directory={self.folder}",
            "--filename_format=obj.$jobnum.$filenum",
            f"--nrfiles={files}", f"--filesize={self.object_bytes}",
            f"--bs={self.block_bytes}", f"--iodepth={self.depth}", f"--numjobs={self.jobs}",
            "--ioengine=io_uring", "--fixedbufs=1", f"--direct={int(self.direct)}",
            "--thread=1", "--group_reporting", "--output-format=json", "--fallocate=none",
            "--file_service_type=" + ("random" if self.random else "sequential"),
        ]
        if self.put:
            argv += ["--rw=write", "--create_on_open=1"]
        else:
            argv += ["--rw=randread" if self.random else "--rw=read", "--norandommap",
                     "--time_based", f"--runtime={runtime_ms}ms", "--allow_file_create=0",
                     "--invalidate=0"]
        return argv

    def _run(self, files, runtime_ms):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(self._argv(files, runtime_ms), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise Failed(f"fio: exit {done.returncode}: {done.stdout[-400:]}{done.stderr[-400:]}")
        # fio may print warnings before its JSON.
        job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
        part = job["write" if self.put else "read"]
        if job["error"]:
            raise Failed(f"fio: error {job['error']}")
        wall_s = max(part["runtime"], 1) / 1e3
        if self.put:
            cpu_s = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
        else:
            cpu_s = (job["usr_cpu"] + job["sys_cpu"]) / 100 * job["job_runtime"] / 1e3
        return {"program": "fio", "bytes": part["io_bytes"], "wall_s": wall_s, "cpu_s": cpu_s,
                "bytes_per_s": part["io_bytes"] / wall_s,
                "objects": part["io_bytes"] / self.object_bytes}

    def round(self, objects, seconds):
        """objects: how many files there are in all (reads) or are to be made (writes)."""
        figures = self._run(max(1, objects // self.jobs), int(seconds * 1000))
        figures["cpu_s"] = max(figures["cpu_s"] - self.idle_cpu_s, 0.0)
        if self.put:
            self._remove_files()
        return figures

    def measure_idle(self):
        """The CPU time of starting and filling buffers, about 0.15 s, which is not that of the I/O.

        Reads are done in the jobs' own threads, and fio says what those took. Writes into a growing file are
        handed to worker threads of the kernel that fio's own figures leave out; so the whole process is
        counted, and a run that writes one file is taken off.
        """
        if not self.put:
            return
        self.idle_cpu_s = 0.0
        costs = []
        for _ in range(5):
            costs.append(self._run(1, 1)["cpu_s"])
            self._remove_files()
        self.idle_cpu_s = sorted(costs)[2]

    def _remove_files(self):
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.startswith("obj."):
                    os.unlink(entry.path)

    def choices(self, buffers_bytes=512 << 20):
        """Block sizes and depths worth trying for objects of this size."""
        blocks = {min(self.object_bytes, b) for b in (512 << 10, 1 << 20, 4 << 20)}
        for block in sorted(blocks | {min(self.object_bytes, 16 << 20)}):
            for depth in (2, 5, 16):
                if block * depth * self.jobs <= buffers_bytes:
                    yield block, depth

    def choose(self, objects, seconds):
        """Tries all choices and keeps the fastest: fio at its best is what we are measured by."""
        best = 0.0
        tried = []
        for block, depth in self.choices():
            self.block_bytes, self.depth = block, depth
            rate = self.round(objects, seconds)["bytes_per_s"]
            tried.append({"block_bytes": block, "depth": depth, "bytes_per_s": rate})
            if rate > best:
                best, chosen = rate, (block, depth)
        self.block_bytes, self.depth = chosen
        self.measure_idle()
        return tried


# bench_key_text(): the last 16 digits are the number of the object. The footer has the key in full.
KEY = re.compile(rb"bench@00000000@0@[0-9a-f]{48}([0-9a-f]{16})")
FOOTER_TAIL_BYTES = 64 << 10


def store_files(store):
    """(path, stat) of the objects of a store with a file per key."""
    for folder, folders, names in os.walk(store):
        if ".kvkeep" in folders:
            folders.remove(".kvkeep")
        for name in names:
            if name.endswith(".kv"):
                path = os.path.join(folder, name)
                yield path, os.stat(path)


def link_keys(store, links):
    """Lets the plain loop read the store's very own files: on a disk that is shared with others, two sets of files differ by
    a factor for as long as they exist, by where they lie."""
    for path, stat in store_files(store):
        with open(path, "rb") as file:
            file.seek(max(0, stat.st_size - FOOTER_TAIL_BYTES))
            found = KEY.search(file.read())
        os.symlink(os.path.abspath(path), os.path.join(links, found[1].decode() + ".obj"))


def link_objects(store, links, jobs, object_bytes):
    """Lets fio read the store's very own files: links obj.<job>.<number> to them, in the order in which they
    were written. Returns how many there are."""
    found = [(stat.st_mtime_ns, stat.st_ino, path) for path, stat in store_files(store)
             if stat.st_size >= object_bytes]
    found.sort()
    os.makedirs(links, exist_ok=True)
    count = len(found) // jobs * jobs
    for number, (_, _, path) in enumerate(found[:count]):
        os.symlink(os.path.abspath(path),
                   os.path.join(links, f"obj.{number % jobs}.{number // jobs}"))
    return count
