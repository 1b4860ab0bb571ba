# SPDX-License-Identifier: Apache-2.0
"""As much of LMCache as its adapters see: check_engines.py has the real one."""


class Bitmap:
    def __init__(self, size):
        self.bits = [False] * size

    def set(self, index):
        self.bits[index] = True

    def test(self, index):
        return self.bits[index]
