# SPDX-License-Identifier: Apache-2.0
# The short way in front of meson. Each configuration builds in a folder of its own:
#   make check                               build/
#   make check SANITIZE=address,undefined    build-address-undefined/
#   CC=clang make check SANITIZE=thread      build-clang-thread/

SANITIZE ?=
SUITE ?=
DIR ?=
PREFIX ?= /usr/local
comma := ,

ifneq ($(filter default undefined,$(origin CC)),)
compiler :=
else
compiler := $(CC)
export CC
endif

BUILD := build$(if $(compiler),-$(notdir $(firstword $(compiler))))$(if $(SANITIZE),-$(subst $(comma),-,$(SANITIZE)))
SETUP := --prefix $(PREFIX) $(if $(SANITIZE),-Db_sanitize=$(SANITIZE) -Db_lundef=false)

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

dependencies:
	@scripts/install-dependencies $(if $(SANITIZE),sanitize)

$(BUILD)/build.ninja: | dependencies
	@meson setup $(BUILD) $(SETUP)

check: all
	@scripts/check $(BUILD) $(if $(SUITE),--suite $(SUITE))

# Which lines and branches the tests run, and whether each room has what it is to have; COVERAGE_ARGS='src/adapter --missed'
# names what is missing, --only-print judges nothing.
coverage: dependencies
	@[ -e build-coverage/build.ninja ] || meson setup build-coverage -Db_coverage=true -Dbuildtype=debug
	@ninja -C build-coverage
	@find build-coverage -name '*.gcda' -delete
	@scripts/check build-coverage --suite $(or $(SUITE),unit); status=$$?; \
		scripts/coverage build-coverage $(COVERAGE_ARGS) && exit $$status

# The long run: hours, days; a later call goes on. PROOF_ARGS='--rows 5,6 --minutes 10' does a part of it, --help says more.
proof: all
	@scripts/proof $(BUILD) --results $(wildcard build*/proof.jsonl) $(PROOF_ARGS)

# Takes one check or step at a time out of a copy of the tree and asks whether the tests notice; MUTANTS_ARGS=--help.
mutants: dependencies
	@scripts/mutants $(MUTANTS_ARGS)

# Each parser, and the calls of a store, led by coverage: FUZZ_ARGS='spec trace --seconds 600', --help says more.
fuzz:
	@CC=clang scripts/install-dependencies sanitize
	@[ -e build-fuzz/build.ninja ] || CC=clang meson setup build-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false
	@ninja -C build-fuzz fuzzers
	@scripts/fuzz build-fuzz $(FUZZ_ARGS)

demo: all
	@scripts/demo $(BUILD)

bench: all
	@scripts/install-dependencies bench
	@bench/run --programs $(BUILD)/bench --json $(BUILD)/bench-results.jsonl $(BENCH_ARGS) $(or $(DIR),$(BUILD))

# The Python package as a file that installs on other machines too, without compilers.
wheel: dependencies
	@scripts/wheel $(or $(DIR),build-wheel)

# The package inside of the released engines, fetched for it: tens of minutes and gigabytes the first time.
check-engines: dependencies
	@python/tests/check_engines.py $(ENGINES)

# One wheel in every Python from 3.10 on that is here, with all tests of the package; PYTHONS='3.10 3.13' takes those only.
check-pythons: dependencies
	@python/tests/check_pythons.py $(PYTHONS)

# Another PREFIX than the one of the first call is taken over; DESTDIR goes before it.
install: all
	@meson configure $(BUILD) -Dprefix=$(PREFIX)
	@meson install -C $(BUILD) --quiet $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then ldconfig; fi

clean:
	rm -rf $(BUILD)

distclean:
	rm -rf build build-*

.PHONY: all dependencies check proof coverage mutants fuzz demo bench wheel check-engines check-pythons install clean distclean
.DELETE_ON_ERROR:
