# SPDX-License-Identifier: Apache-2.0
"""
The rows of the proof: what each is to show, by which tests, how much of it the long run wants, and what is missing.

A test is a name of `meson test`. What makes it longer is an environment variable, or an option of the program. Where it has
none, one run is all of it. A line each, so that lists merge.
"""


class Test:
    """
    name      of the program in meson
    what      is counted: the unit of its `# proof:` lines; 'cases' are those that passed
    goal      of the long run in that unit; None: one run is all
    scale     the environment variable, or --option, that says how much to do; None: it does all there is
    least     the smallest value of that with which the test still sees what it is for
    most      the largest, where there is one
    only      which cases of the program (KVK_ONLY)
    seed      how it is told its seed: KVK_SEED, or --seed; None: it has none
    """

    def __init__(self, name, what='cases', goal=None, scale=None, least=1, most=None, only=None, seed=None):
        self.name = name
        self.what = what
        self.goal = goal
        self.scale = scale
        self.least = least
        self.most = most
        self.only = only
        self.seed = seed or ('KVK_SEED' if scale and not scale.startswith('--') else None)

    def label(self):
        return f'{self.name} ({self.only.rstrip("*")})' if self.only else self.name


class Row:
    """missing: what the row wants and no test here does; '' where the tests are all of it."""

    def __init__(self, number, shows, tests=(), missing=''):
        self.number = number
        self.shows = shows
        self.tests = list(tests)
        self.missing = missing


# Stands for the unit tests that no row names.
REST = 'all other unit tests'

ROWS = [
    Row(1, 'the specification, by unit and table tests', [
        Test(REST),
    ]),
    Row(2, 'every step of every request fails in every way', [
        Test('store_faults', 'faults', only='test_every_step*'),
        Test('store_faults', 'pairs', 10**6, 'KVK_PAIRS', 12, only='test_two_faults*'),
        Test('store_between'),
        Test('posix_faults'),
        Test('account_faults'),
        Test('fault'),
        Test('fault_ring'),
        Test('system_bad_disk', 'rounds', 10**5, 'KVK_ROUNDS', 8),
    ]),
    Row(3, 'the nth allocation fails, once and from then on', [
        Test('store_memory', 'allocations'),
    ]),
    Row(4, 'what a file system may leave after a crash', [
        Test('store_crash_states', 'states', 10**8, 'KVK_STEPS', 5000),
        Test('store_pool', 'states', 10**8, 'KVK_STEPS', 300, only='every_mix_of_pages*'),
    ]),
    Row(5, 'power cuts of ext4 (four modes) and XFS, at each durability', [
        Test('system_power_cut', 'cuts', 100000, 'KVK_CUTS', 500),
        Test('system_write_log', 'points', 100000, 'KVK_POINTS', 100),
    ], 'a log of all writes that another kernel wrote down: the log is that of a disk which the test serves to this one'),
    Row(6, 'any instant is safe: snapshots of a busy store on ext4, XFS, btrfs', [
        Test('system_snapshot', 'snapshots', 20000, 'KVK_SNAPSHOTS', 201),
    ]),
    Row(7, 'kill -9 of writers, readers and the keeper', [
        Test('system_kill', 'kills', 100000, 'KVK_KILLS', 320),
        Test('store_kill', 'kills', 100000, 'KVK_STEPS', 40),
    ]),
    Row(8, 'random operations against a model', [
        Test('store_model', 'answers', 10**9, 'KVK_STEPS', 10000, only='in_memory'),
        Test('store_model', 'answers', 10**6, 'KVK_STEPS', 10000, only='on_disk*'),
        Test('catalog_model', 'operations', 10**9, 'KVK_STEPS', 200000),
    ], 'jumps of the clock: schedules of row 9 have them'),
    Row(9, 'races of store, lookup and delete', [
        Test('store_race', 'requests', 10**7, 'KVK_STEPS', 1500),
        Test('catalog_race', 'operations', 10**7, 'KVK_STEPS', 20000),
        Test('store_fork'),
        Test('store_schedules', 'schedules', 10**7, 'KVK_STEPS', 200),
        Test('store_schedules_two', 'schedules', 10**7, 'KVK_STEPS', 200),
        Test('store_schedules_deaths', 'schedules', 10**7, 'KVK_STEPS', 200),
    ], 'schedules from a seed of pools, and over the posix backend: those that are drawn are of stores with a file per key, in memory'),
    Row(10, 'every bit and byte of an object changed, every truncation, every block swapped', [
        Test('store_corrupt', 'changes'),
    ], 'random changes of a store that is in use'),
    Row(11, 'inputs of any bytes', [
        Test('fuzz-footer', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-superblock', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-account', 'inputs', 10**8, '--runs', 4000, seed='--seed'),
        Test('fuzz-snapshot', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-pool_head', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-key_name', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-manifest', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-spec', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-fault', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-trace', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-chat', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-cli_text', 'inputs', 10**9, '--runs', 20000, seed='--seed'),
        Test('fuzz-quotas', 'inputs', 10**7, '--runs', 1000, seed='--seed'),
        Test('fuzz-open', 'inputs', 10**6, '--runs', 300, seed='--seed'),
        Test('fuzz-calls', 'inputs', 10**6, '--runs', 200, seed='--seed'),
    ], 'figures in this table of runs that are led by coverage: `make fuzz` is a run of its own'),
    Row(12, 'every field of key and namespace changed alone is a miss', [
        Test('store_namespace'),
        Test('store_by_name'),
        Test('lmcache_naming'),
    ]),
    Row(13, 'rows 2, 3 and 7 to 9 under sanitizers', [], 'valgrind'),
    Row(14, 'the cap under eight processes that are stopped and killed', [
        Test('system_cap', 'seconds', 8 * 3600, 'KVK_CAP_SECONDS', 30),
        Test('system_shared', 'seconds', 3600, 'KVK_SHARED_SECONDS', 20, 20),
        Test('account_processes', 'seconds', 3600, 'KVK_ACCOUNT_SECONDS', 10),
    ]),
    Row(15, 'no room, no inodes, read-only, limits of the process', [
        Test('system_full', seed='KVK_SEED'),
        Test('system_limits'),
        Test('store_room'),
    ]),
    Row(16, 'the medium hangs', [
        Test('store_hang'),
        Test('uring_life'),
        Test('system_hung_disk', 'hangs', 1000, 'KVK_HANGS', 6),
    ], 'hangs of minutes'),
    Row(17, 'what is planted, who may look in, and secrets', [
        Test('store_attack'),
        Test('store_planted'),
        Test('store_private'),
        Test('posix_root'),
    ]),
    Row(18, 'tests notice when a check is taken out', [], 'figures in this table: `make mutants` is a run of its own, and its '
        'figures stand below'),
    Row(19, 'files of every released format open', [
        Test('golden'),
    ]),
]

# What runs under a sanitizer counts for row 13, whatever row it is of.
SANITIZED_ROW = 13
SANITIZED_GOAL = 10**7
SANITIZED = [2, 3, 7, 8, 9]
