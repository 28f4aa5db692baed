"""Mooncake Store, driven line by line from the bench.

    mooncake_worker.py store MASTER BYTES          gives its memory to the cluster
    mooncake_worker.py client MASTER LARGEST       answers commands on its input

Commands, and what a client answers in one line:

    put KEY BYTES CALLS     nanoseconds of each call
    get KEY BYTES CALLS     nanoseconds of each call
    keep KEY BYTES          "kept": the value is there for gets
    read KEY BYTES SECONDS  bytes read, and the nanoseconds that took

Values leave from and come into one registered buffer, and the measured loops do
nothing beside the call.
"""

import ctypes
import mmap
import os
import sys
from time import perf_counter_ns

# A pool for transfers that do not use a registered buffer; ours all do.
LOCAL_BYTES = 16 << 20


def connected(master, segment_bytes):
    from mooncake.store import MooncakeDistributedStore

    store = MooncakeDistributedStore()
    code = store.setup(
        "127.0.0.1", "P2PHANDSHAKE", segment_bytes, LOCAL_BYTES, "tcp", "", master
    )
    if code != 0:
        sys.exit(f"mooncake refuses the set-up: {code}")
    return store


def expect(found, wanted, what):
    if found != wanted:
        sys.exit(f"mooncake: {what} answered {found}, not {wanted}")


class Client:
    def __init__(self, master, largest):
        self.store = connected(master, 0)
        self.memory = mmap.mmap(-1, largest)
        # Touched, so that no call pays for fresh pages.
        for start in range(0, largest, 4096):
            self.memory[start] = 7
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        expect(self.store.register_buffer(self.address, largest), 0, "register_buffer")
        self.puts = 0

    def put(self, key, size, calls):
        put_from, address, took = self.store.put_from, self.address, []
        # A key is written once: each call has its own, and they go behind the clock.
        keys = [f"{key}-{os.getpid()}-{self.puts + number}" for number in range(calls)]
        self.puts += calls
        for name in keys:
            begin = perf_counter_ns()
            code = put_from(name, address, size)
            took.append(perf_counter_ns() - begin)
            expect(code, 0, "put_from")
            expect(self.store.remove(name, True), 0, "remove")
        return " ".join(map(str, took))

    def get(self, key, size, calls):
        get_into, address, took = self.store.get_into, self.address, []
        for _ in range(calls):
            begin = perf_counter_ns()
            found = get_into(key, address, size)
            took.append(perf_counter_ns() - begin)
            expect(found, size, "get_into")
        return " ".join(map(str, took))

    def keep(self, key, size):
        expect(self.store.put_from(key, self.address, size), 0, "put_from")
        return "kept"

    def read(self, key, size, seconds):
        begin, done = perf_counter_ns(), 0
        end = begin + int(seconds * 1e9)
        while perf_counter_ns() < end:
            expect(self.store.get_into(key, self.address, size), size, "get_into")
            done += size
        return f"{done} {perf_counter_ns() - begin}"


def answer(client, words):
    if words[0] == "put":
        return client.put(words[1], int(words[2]), int(words[3]))
    if words[0] == "get":
        return client.get(words[1], int(words[2]), int(words[3]))
    if words[0] == "keep":
        return client.keep(words[1], int(words[2]))
    if words[0] == "read":
        return client.read(words[1], int(words[2]), float(words[3]))
    sys.exit(f"mooncake_worker.py: expected put, get, keep or read, got {words[0]}")


def main():
    # Libraries of Mooncake write on the standard output; answers have their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    role, master, count = sys.argv[1:4]
    if role == "store":
        kept = connected(master, int(count))
        print("ready", file=answers)
        sys.stdin.read()
        kept.close()
        return
    client = Client(master, int(count))
    print("ready", file=answers)
    for line in sys.stdin:
        print(answer(client, line.split()), file=answers)


if __name__ == "__main__":
    main()
