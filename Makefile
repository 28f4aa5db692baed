# Needs Rust, a C compiler and make; everything else is fetched or built here.
#
#   make demo    see it work: three servers, a large file, four readers, one kill -9
#   make test    all set-up and the tests
#   make check   what CI runs: formatting, lints, documents, tests, docker-compose.yml
#                under a real engine, a short fuzz run, the instructions that each
#                operation costs
#   make compose docker-compose.yml under a real engine
#   make conformance
#                the sentences that every back end of discovery must pass, over all
#                eight of them, and the version of what each ran against
#   make outages clusters on Consul, etcd and ZooKeeper, which go away for a minute
#   make fuzz    a short run of the fuzzers, and the bugs planted for them
#   make bench   side by side with the floor and peers; QUICK=1 in under 3 minutes
#   make soak    the long runs, by hand, and make outages
#   make install puddle into ~/.cargo/bin (PREFIX=... for elsewhere)

CARGO ?= cargo
TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
# One profile for the tests and for the binaries that they start.
TEST_BINARY := $(TARGET)/debug/puddle
DEMO_BINARY := $(TARGET)/release/puddle
BENCH_BINARY := $(TARGET)/release/rampuddle-bench

.PHONY: demo test tools built conformance outages check format lint documents fuzz instructions compose bench soak audit \
  install clean

demo:
	$(CARGO) build --release --locked --package puddle
	$(DEMO_BINARY) demo $(FILE)

# The binary is built with the tests: alone it would be built another time, for
# fewer features of the crates it shares with them.
test: tools
	PUDDLE_BINARY=$(TEST_BINARY) CARGO=$(CARGO) tests/run.sh

# What `make test` builds: behind it nothing is left to do.
built:
	$(CARGO) test --locked --workspace --no-run --quiet

# What some tests need beside Rust, unpacked below target/.
tools:
	deploy/libfaketime.sh
	-deploy/consul.sh
	-deploy/etcd.sh
	-deploy/zookeeper.sh
	-deploy/dns.sh

# Every back end against what it is for; none is skipped.
conformance: tools built
	tests/conformance.sh

# Services that go away do so for a minute here.
outages: export PUDDLE_OUTAGE_SECONDS = 60
outages: tools built
	PUDDLE_BINARY=$(TEST_BINARY) CARGO=$(CARGO) tests/run.sh \
	  --test clusters_on_services -- --show-output

check: format lint documents test compose fuzz instructions

format:
	$(CARGO) fmt --all -- --check
	cd fuzz && $(CARGO) fmt --package rampuddle-fuzz --package rampuddle-fuzz-coverage -- --check

lint:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	for feature in "" consul dns etcd zookeeper; do \
	  $(CARGO) clippy --locked --package rampuddle-discovery --all-targets \
	    --no-default-features --features "$$feature" -- -D warnings || exit 1; done
	cd fuzz && $(CARGO) clippy --locked --release --workspace --all-targets -- -D warnings

documents:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

# Outside the workspace, with a lock file of its own.
fuzz:
	fuzz/check.sh

# What each operation costs the server, against what it cost before.
instructions:
	bench/instructions.sh

# docker-compose.yml under a real engine, which root on Debian brings; skipped where
# there is none, unless CI is set. The image has the program that the tests have built;
# PUDDLE_FROM=source builds it in the Dockerfile instead.
compose: tools built
	PUDDLE_BINARY=$(TEST_BINARY) tests/compose.sh

# Writes docs/benchmarks.md, and fails when a goal is missed. QUICK=1 prints only,
# unless DOCUMENT=docs says where to write.
bench:
	deploy/bench-peers.sh
	$(CARGO) build --release --locked --package puddle --package rampuddle-bench
	$(BENCH_BINARY) all $(if $(QUICK),--quick) \
	  $(if $(DOCUMENT),--document $(DOCUMENT),$(if $(QUICK),,--document docs))

# The long runs at their full size; writes what it saw into docs/testing.md. What services
# do in a minute without them comes first.
soak: outages
	tests/soak.sh
	fuzz/soak.sh

# Licences and known vulnerabilities; needs cargo-deny.
audit:
	$(CARGO) deny check

install:
	$(CARGO) install --locked --path cli $(if $(PREFIX),--root $(PREFIX))

clean:
	$(CARGO) clean
