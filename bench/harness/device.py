# SPDX-License-Identifier: Apache-2.0
"""A RAM-backed block device with a journalled ext4, made for one run and always taken down again.

Two kinds. A loop device over a file on tmpfs takes writes and reads at 4 to 7 GB/s, whatever the data; its
copying is done by a thread of the kernel. zram does the copying in the caller's own time and compresses, so that
data that does not compress is written at 0.5 GB/s: it serves where very many small, mostly empty files are
wanted, which take next to no memory on it.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

EXT4 = ["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0"]


class Unavailable(Exception):
    """Such a device cannot be made here; the text says why."""


def _run(argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Unavailable(f"{argv[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


def _unmount(folder):
    """A loop device lets go of its file a moment after losetup says so."""
    end = time.monotonic() + 10
    while True:
        try:
            return _run(["umount", folder])
        except Unavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _write(path, text):
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise Unavailable(str(error)) from error


class RamDevice:
    """mount is the folder to use. undo is a list of steps, last made first undone."""

    def __init__(self, kind, size_bytes, inodes=0):
        self.kind = kind
        self.undo = []
        self.mount = None
        atexit.register(self.close)
        try:
            self._make(size_bytes, inodes)
        except Unavailable:
            self.close()
            raise

    def _make(self, size_bytes, inodes):
        if os.geteuid() != 0:
            raise Unavailable("needs root")
        base = tempfile.mkdtemp(prefix="kvkeep-bench-")
        self.undo.append(lambda: shutil.rmtree(base, ignore_errors=True))
        if self.kind == "loop":
            device = self._make_loop(base, size_bytes)
        else:
            device = self._make_zram(size_bytes)
        _run(EXT4 + (["-N", str(inodes)] if inodes else []) + [device])
        mount = os.path.join(base, "mnt")
        os.mkdir(mount, 0o700)
        _run(["mount", "-o", "nodiscard,noatime", device, mount])
        self.undo.append(lambda: _unmount(mount))
        os.chmod(mount, 0o700)
        self.mount = mount

    def _make_loop(self, base, size_bytes):
        memory = os.path.join(base, "tmpfs")
        os.mkdir(memory, 0o700)
        _run(["mount", "-t", "tmpfs", "-o", f"size={size_bytes + (64 << 20)}", "kvkeep-bench", memory])
        self.undo.append(lambda: _unmount(memory))
        image = os.path.join(memory, "image")
        with open(image, "wb") as file:
            file.truncate(size_bytes)
        device = _run(["losetup", "-f", "--show", "--direct-io=on", image])
        self.undo.append(lambda: _run(["losetup", "-d", device]))
        return device

    def _make_zram(self, size_bytes):
        try:
            with open("/sys/class/zram-control/hot_add", encoding="ascii") as file:
                number = file.read().strip()
        except OSError as error:
            raise Unavailable(f"zram: {error}") from error
        self.undo.append(lambda: _write("/sys/class/zram-control/hot_remove", number))
        _write(f"/sys/block/zram{number}/disksize", str(size_bytes))
        self.undo.append(lambda: _write(f"/sys/block/zram{number}/reset", "1"))
        return f"/dev/zram{number}"

    def close(self):
        atexit.unregister(self.close)
        while self.undo:
            step = self.undo.pop()
            try:
                step()
            except Unavailable as error:
                print(f"bench: taking down the {self.kind} device: {error}", file=sys.stderr)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.close()


def end_on_signals():
    """SIGTERM and SIGHUP end the run through sys.exit(), so that devices are taken down."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
