#!/usr/bin/env python3
"""Computes placement's golden vectors, independently of the Rust code."""

import hashlib
import math

MASK = (1 << 64) - 1
MEMBERS = [("alpha", 1.0), ("beta", 2.0), ("gamma", 0.5), ("delta-4", 64.0)]
SLOTS = [0, 1, 2, 255, 256, 4711, 32768, 65534, 65535]


def mixed(bits):
    bits ^= bits >> 30
    bits = bits * 0xBF58476D1CE4E5B9 & MASK
    bits ^= bits >> 27
    bits = bits * 0x94D049BB133111EB & MASK
    return bits ^ (bits >> 31)


def hash_of(slot, name):
    seed = int.from_bytes(hashlib.sha512(name.encode()).digest()[:8], "little")
    return mixed(seed + (slot + 1) * 0x9E3779B97F4A7C15 & MASK)


def score(slot, name, weight):
    return weight / -math.log(((hash_of(slot, name) >> 12) + 0.5) * 2.0**-52)


for slot in SLOTS:
    hashes = ", ".join(f"0x{hash_of(slot, name):016X}" for name, _ in MEMBERS)
    order = sorted(range(len(MEMBERS)), key=lambda i: (-score(slot, *MEMBERS[i]), i))
    print(f"        ({slot}, [{hashes}], {order}),")
