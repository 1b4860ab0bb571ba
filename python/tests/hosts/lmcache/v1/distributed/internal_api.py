# SPDX-License-Identifier: Apache-2.0


class L2StoreResult:
    def __init__(self, success, count):
        self.success, self.count = success, count

    def is_successful(self):
        return self.success

    def bytes_transferred(self):
        return self.count
