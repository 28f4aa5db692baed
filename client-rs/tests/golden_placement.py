#!/usr/bin/env python3
"""Computes placement's golden vectors, independently of the Rust code."""

import hashlib
import math

MASK = (1 << 64) - 1
MEMBERS = [("alpha", 1.0), ("beta", 2.0), ("gamma", 0.5), ("delta-4", 64.0)]
SLOTS = [0, 1, 2, 15, 16, 255, 256, 4711, 32768, 65534, 65535]


def mixed(bits):
    bits ^= bits >> 30
    bits = bits * 0xBF58476D1CE4E5B9 & MASK
    bits ^= bits >> 27
    bits = bits * 0x94D049BB133111EB & MASK
    return bits ^ (bits >> 31)


def seed(name):
    return int.from_bytes(hashlib.sha512(name.encode()).digest()[:8], "little")


def point(name, index):
    return mixed(seed(name) + (index + 1) * 0x9E3779B97F4A7C15 & MASK)


def rendezvous(slot, name):
    return point(name, slot)


def ring(slot, name):
    """How soon the member's next point comes, from 4,096 segments of 16 slots."""
    segment, within = divmod(slot, 16)
    place, here = within << 60, point(name, segment)
    if here >= place:
        return MASK - (here - place)
    next_one = point(name, (segment + 1) % 4096)
    return place - 1 - (next_one >> 4) * within


def score(strategy, slot, name, weight):
    return weight / -math.log(((strategy(slot, name) >> 12) + 0.5) * 2.0**-52)


def grouped(number):
    text = f"{number:016X}"
    return "0x" + "_".join(text[i : i + 4] for i in range(0, 16, 4))


for strategy in [rendezvous, ring]:
    print(f"const {strategy.__name__.upper()}: &[Vector] = &[")
    for slot in SLOTS:
        hashes = ", ".join(grouped(strategy(slot, name)) for name, _ in MEMBERS)
        by_score = lambda i: (-score(strategy, slot, *MEMBERS[i]), i)
        order = sorted(range(len(MEMBERS)), key=by_score)
        print(f"    ({slot}, [{hashes}], {order}),")
    print("];")
