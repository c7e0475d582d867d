# SPDX-License-Identifier: BSD-3-Clause
# What can be made: `make help`.

BUILD   := build
MODULE  := $(BUILD)/libredis_keyspace_amqp.so
FAULTS  := $(BUILD)/faults/libredis_keyspace_amqp.so
GO      ?= go
CC      ?= cc
# A line when a test ends; its exit status is that of the tests.
PROGRESS = $(GO) run ./test/progress
GOBUILD  = CGO_ENABLED=1 $(GO) build -trimpath -buildvcs=false -buildmode=c-shared -ldflags='-s'

# C as tests, benchmarks and lint compile it. What cgo needs of it for the
# product is in c/bridge.go: the language must be the same.
CFLAGS  := @c/flags -O1 -g

# Where make install puts things. Debian's redis-server.service lets the server
# run files of /usr/lib and /lib only: for it, MODULEDIR=/usr/lib/redis/modules.
PREFIX    ?= /usr/local
MODULEDIR ?= $(PREFIX)/lib/redis/modules
DOCDIR    ?= $(PREFIX)/share/doc/key_evt_amqp
MANDIR    ?= $(PREFIX)/share/man
DOCS      := README.md CHANGELOG.md LICENSE examples/redis.conf $(wildcard docs/*.md docs/monitoring/*)

# Go modules beside the product's: their dependencies are not the product's, and
# ask for newer Go.
OTHER_MODULES := bench packaging/deb-rpm

# The main thread's half of the module that knows nothing of Redis and Go.
C_PLAIN := c/queue.c c/record.c c/lent.c c/match.c c/spool.c c/owner.c c/spooldir.c c/hashslot.c c/slab.c c/deadlines.c c/watch.c c/lag.c
C_TESTS := queue record lent match spool spooldir hashslot watch

.PHONY: all help run install uninstall package bench test test-unit test-c test-e2e soak clean FORCE
.PHONY: lint lint-format lint-go lint-c lint-sh

all: $(MODULE) ## Build the module (the default)

help: ## Show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 20

# Go decides what is out of date. The server refuses a file without an x bit.
$(MODULE): FORCE
	@mkdir -p $(BUILD)
	$(GOBUILD) -o $@.new ./module
	@rm -f $@.h $(BUILD)/libredis_keyspace_amqp.so.new.h $(BUILD)/libredis_keyspace_amqp.h
	chmod 755 $@.new && mv $@.new $@

# The module as the end-to-end tests kill it: c/fault.h.
$(FAULTS): FORCE
	@mkdir -p $(@D)
	$(GOBUILD) -tags faults -o $@ ./module
	@rm -f $(@:.so=.h) && chmod 755 $@

run: ## Install what is missing, build, and watch events arrive
	@sh test/install.sh run
	@$(MAKE) --no-print-directory $(MODULE)
	@$(GO) run ./examples/run -module $(MODULE)

# Builds only what is missing: root, who installs, may have no Go in PATH.
install: ## Install what was built: PREFIX, MODULEDIR and DESTDIR say where
	@test -f $(MODULE) || $(MAKE) --no-print-directory $(MODULE)
	install -D -m 755 $(MODULE) $(DESTDIR)$(MODULEDIR)/$(notdir $(MODULE))
	install -D -m 644 docs/key_evt_amqp.7 $(DESTDIR)$(MANDIR)/man7/key_evt_amqp.7
	for f in $(DOCS); do install -D -m 644 $$f $(DESTDIR)$(DOCDIR)/$$f || exit; done

uninstall: ## Remove what make install has installed
	rm -f $(DESTDIR)$(MODULEDIR)/$(notdir $(MODULE)) $(DESTDIR)$(MANDIR)/man7/key_evt_amqp.7
	for f in $(DOCS); do rm -f $(DESTDIR)$(DOCDIR)/$$f || exit; done
	test ! -d $(DESTDIR)$(DOCDIR) || find $(DESTDIR)$(DOCDIR) -depth -type d -empty -delete

package: $(MODULE) ## A .deb and an .rpm in build/package
	@$(GO) -C packaging/deb-rpm run . -root $(CURDIR) -module $(abspath $(MODULE)) -out $(abspath $(BUILD))/package

# QUICK=1: the main ratios, once, and only printed.
ifeq ($(QUICK),)
BENCH := -out docs/performance -docs docs/performance.md
else
BENCH := -only main,delivery,memory -rounds 1
endif
bench: $(MODULE) ## Measure all side by side, draw plots (40 minutes; QUICK=1: 5)
	$(GO) -C bench build -o ../$(BUILD)/bench .
	$(BUILD)/bench $(BENCH)

test: ## Install what is missing, then run every test
	@sh test/install.sh test
	@$(MAKE) --no-print-directory lint test-c test-unit test-build test-e2e

lint: lint-format lint-go lint-c lint-sh ## Formats, licences, go vet, C and shell without a warning

lint-format:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "not gofmt-formatted:"; echo "$$out"; exit 1; fi
	@out=$$(git ls-files '*.go' '*.[ch]' '*.sh' '*.py' '*.js' '*.lua' 2>/dev/null | xargs -r grep -L 'SPDX-License-Identifier: BSD-3-Clause'); \
	if [ -n "$$out" ]; then echo "without an SPDX line at the top:"; echo "$$out"; exit 1; fi

lint-go:
	$(GO) vet ./...
	for module in $(OTHER_MODULES); do $(GO) -C $$module vet ./... || exit; done

# Each file with the header that cgo makes of export.go.
lint-c:
	@mkdir -p $(BUILD)/lint
	cd c && $(GO) tool cgo -objdir $(abspath $(BUILD))/lint -- export.go && rm -f $(abspath $(BUILD))/lint/*.go
	for file in c/*.c; do $(CC) @c/flags -O2 -Ic -I$(BUILD)/lint -c -o /dev/null $$file || exit; done
	@grep -q '^// #cgo CFLAGS: -std=c11 -D_GNU_SOURCE ' c/bridge.go && grep -qx -e '-std=c11 -D_GNU_SOURCE' c/flags || { echo "c/bridge.go and c/flags: two languages"; exit 1; }

lint-sh:
	shellcheck $(wildcard test/*.sh) .ci/run

.PHONY: format
format: ## Format Go and C (clang-format 14 or newer)
	gofmt -w $(shell git ls-files '*.go')
	clang-format -i $(wildcard c/*.[ch] c/test/*.[ch] bench/*/*.c)

test-unit: ## Tests that need no Redis (amqp's start a broker)
	$(GO) test -json -race ./keymask/... ./fallback/... ./module/... ./amqp/... ./examples/... ./c | $(PROGRESS)

test-c: $(C_TESTS:%=test-c-%) ## C tests under ASan, UBSan and TSan
test-c-%: FORCE
	@mkdir -p $(BUILD)/test
	$(CC) $(CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all -Ic -o $(BUILD)/test/$*-asan c/test/$*_test.c $(C_PLAIN) -lpthread
	$(BUILD)/test/$*-asan
	$(CC) $(CFLAGS) -fsanitize=thread -Ic -o $(BUILD)/test/$*-tsan c/test/$*_test.c $(C_PLAIN) -lpthread
	$(BUILD)/test/$*-tsan

test-build: FORCE ## Both builds give the module, and it is what it should be
	sh test/build.sh

test-e2e: $(MODULE) $(FAULTS) ## Real servers, end to end
	$(GO) -C bench test -json -race -count=1 -timeout 10m . | $(PROGRESS)
	$(GO) test -json -race -count=1 -timeout 40m ./test/... | $(PROGRESS)

MINUTES ?= 10
SEED ?= 0
soak: $(MODULE) ## Mixed load under random faults: MINUTES=10, SEED=0 (drawn)
	$(GO) test -race -count=1 -v -timeout 24h ./test -run '^TestSoak$$' -soak $(MINUTES)m -seed $(SEED)

PLANT ?= .
.PHONY: test-model
test-model: ## Plant faults into the queue's code: the model must find each (PLANT=pattern)
	$(GO) test ./fallback/model -run '^TestPlantedFaultsAreFound$$' -plant '$(PLANT)' -v -timeout 6h

# These need the network (the test- ones fetch Debian's packages of other servers,
# or of their sources, into build/servers), and are not part of make test.
.PHONY: audit test-matrix test-redis-suite test-api test-arm64 test-container
audit: ## Are there known advisories for the modules we use? Needs the network
	@sh test/audit.sh

test-matrix: $(MODULE) $(FAULTS) ## The same on each supported server and broker
	sh test/matrix.sh

test-redis-suite: $(MODULE) ## Redis's own test suite, the module in every server
	@sh test/install.sh redis-suite
	sh test/redis-suite.sh

test-api: ## Our declarations of the module API beside the servers' own
	@sh test/install.sh redis-suite
	sh test/api.sh

test-container: ## Build the container images without a registry, and test them
	@sh test/install.sh container
	sh test/container.sh

test-arm64: ## Build for arm64, and test that under qemu
	@sh test/install.sh arm64
	sh test/arm64.sh

clean: ## Remove what was built
	rm -rf $(BUILD)

FORCE:
