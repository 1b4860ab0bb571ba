# SPDX-License-Identifier: Apache-2.0
"""Who is compared through `lmcache bench l2`, and the environment and the processes in which that runs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from .programs import Failed

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# The same releases that `make check-engines` tries.
sys.path.insert(0, os.path.join(ROOT, "python", "tests"))
from check_engines import PINNED  # noqa: E402

CAP_GB = 64
OURS = ("connector", "adapter")


class Missing(Exception):
    """What the comparison wants is not there; the text says what, and how to get it."""


def spec(name, folder, direct):
    """The JSON of an L2 adapter, each with its own defaults but for direct I/O."""
    if name == "nixl_store_dynamic":
        return {"type": name, "backend": "POSIX", "persist_enabled": True,
                "backend_params": {"file_path": folder, "use_direct_io": str(direct).lower(),
                                   "max_capacity_gb": str(CAP_GB)}}
    if name in ("fs", "fs_native"):
        return {"type": name, "base_path": folder, "use_odirect": direct}
    params = {"file_path": folder, "use_direct_io": direct, "max_capacity_gb": CAP_GB}
    if name == "connector":
        return {"type": "native_plugin", "module_path": "kvkeep.lmcache", "class_name": "Connector",
                "adapter_params": params, "max_capacity_gb": CAP_GB}
    return {"type": "plugin", "module_path": "kvkeep.lmcache", "class_name": "Adapter",
            "adapter_params": dict(params, l1_direct=direct)}


NAMES = ("connector", "adapter", "nixl_store_dynamic", "fs", "fs_native")


def environment(folder, make, fresh):
    """The python of a virtual environment with LMCache, NIXL and kvkeep. make: whether it may be made, which fetches
    gigabytes; fresh: whether kvkeep is built anew from this source."""
    python = os.path.join(folder, "bin", "python")
    stamp = os.path.join(folder, "kvkeep-compare")
    wanted = " ".join(PINNED[0])
    try:
        with open(stamp, encoding="utf-8") as file:
            there = file.read() == wanted
    except OSError:
        there = False
    if not there and not make:
        # Another environment will do too if both are in it, as the one of `make check-engines`.
        if not os.path.exists(python) or subprocess.run([python, "-c", "import lmcache.cli.main, kvkeep"],
                                                        stderr=subprocess.DEVNULL).returncode:
            raise Missing(f"no LMCache and kvkeep in {folder}; without --smoke they are installed there")
        return python
    if not there:
        print(f"installing {wanted} into {folder}: gigabytes", file=sys.stderr)
        _install([sys.executable, "-m", "venv", folder])
        _install([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PINNED[0]])
    if fresh or not there:
        _install([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--force-reinstall",
                  "--no-deps", ROOT])
    if not there:
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(wanted)
    return python


def _install(argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise Missing(f"{' '.join(argv)}: {done.stdout.strip()[-600:] or done.returncode}")


class Peer:
    """A process that runs `lmcache bench l2` with one kind of adapter, again and again."""

    def __init__(self, name, python):
        self.name = name
        self.log = tempfile.TemporaryFile("a+")    # a process appends, and its end is read here
        # One thread in torch: the benchmark zeroes its buffers before each load, and a thread of torch that helped spins on a
        # core of the load for a while afterwards.
        self.process = subprocess.Popen(
            [python, "-u", os.path.join(ROOT, "bench", "harness", "lmcache_bench.py")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.log, text=True,
            env={**os.environ, "LMCACHE_LOG_LEVEL": "WARNING", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"})
        self.versions = None

    def ready(self):
        """Waits until it can be told to go. Returns the versions of what is installed."""
        self.versions = self._answer()
        return self.versions

    def why_not(self):
        """Why this peer cannot run here, or None."""
        if self.name != "nixl_store_dynamic":
            return None
        if not self.versions["nixl"]:
            return "NIXL is not installed"
        return self.versions.get("nixl_fault")

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.name}: ended with status {self.process.wait()}: {self.last_words()}")
        return json.loads(line)

    def last_words(self):
        self.log.seek(0)
        return self.log.read()[-1500:].strip()

    def go(self, folder, direct, cold, object_bytes, in_flight, rounds, warmup):
        """One run of stores and loads in a new folder, which is gone afterwards."""
        os.mkdir(folder, 0o700)
        order = {"spec": spec(self.name, folder, direct), "folder": folder, "cold": cold, "object_bytes": object_bytes,
                 "in_flight": in_flight, "rounds": rounds, "warmup": warmup}
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            answer = self._answer()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if "failed" in answer:
            raise Failed(f"{answer['failed']}: {' | '.join(self.last_words().splitlines()[-3:])}")
        return answer

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
