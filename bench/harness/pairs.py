# SPDX-License-Identifier: Apache-2.0
"""Alternating pairs, and what may be said about them.

On a shared machine both sides of a comparison drift by factors within minutes; their ratio within one pair drifts
far less. So each figure is the median of the paired ratios, with the smallest and the largest.
"""

import statistics


def alternate(count, ours, theirs):
    """Runs ours() and theirs() by turns, one of each a pair, each first in every other pair, after one unmeasured
    round of both. Returns the list of (ours, theirs)."""
    ours()
    theirs()
    pairs = []
    for number in range(count):
        if number % 2 == 0:
            first = ours()
            pairs.append((first, theirs()))
        else:
            first = theirs()
            pairs.append((ours(), first))
    return pairs


def order(names, turn):
    """The same for more than two: who begins moves on by one from turn to turn."""
    first = turn % len(names)
    return names[first:] + names[:first]


def spread(values):
    """Median, smallest, largest."""
    values = list(values)
    return statistics.median(values), min(values), max(values)


def ratio(pairs, figure):
    """Spread of figure(ours) / figure(theirs)."""
    return spread(figure(a) / figure(b) for a, b in pairs)


def difference(pairs, figure):
    """Spread of figure(ours) - figure(theirs)."""
    return spread(figure(a) - figure(b) for a, b in pairs)


def rate(figures):
    return figures["bytes_per_s"]


def cpu_per_gb(figures):
    return figures["cpu_s"] / (figures["bytes"] / 1e9)


def objects_per_cpu(figures):
    return figures["objects"] / figures["cpu_s"]


def cpu_us(figures):
    return figures["cpu_s"] * 1e6 / figures["objects"]


def p50(figures):
    return figures["p50_us"]


def median_of(pairs, side, figure):
    return statistics.median(figure(pair[side]) for pair in pairs)
