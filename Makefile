# `make` alone lists the targets.

GO          ?= go
PKGS        ?= ./...
TESTFLAGS   ?=
BENCH       ?= .
FUZZTIME    ?= 10s
EXPLORETIME ?= 10m
SEEDS       ?= 25000
FROM        ?= 1
SEED        ?=
TRACE       ?=
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
CLUSTER     ?= exchange
COMPOSE     ?= $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; else echo docker-compose; fi)
COMPOSE_V2  ?= v2.40.3
SOAK        ?= cuts blackhole delay-rate cut-per-second cuts-campaign kill-campaign pause-campaign

.DEFAULT_GOAL := help
.PHONY: help demo build image image-etcd cluster-up cluster-run cluster-down cluster-test compose-plugin test race integration bench bench-peers bench-directory soak etcd-soak fuzz sim sim-bugs explore lint check clean

help:
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-17s%s\n", $$1, $$2}'
	@echo 'Variables: PKGS=./fabric/... TESTFLAGS=-v BENCH=Decode FUZZTIME=1m EXPLORETIME=1h'

demo: build ## all-to-all exchange of 8 nodes, then the same with a stalled consumer
	bin/zfab run testdata/topologies/exchange.yaml
	bin/zfab run testdata/topologies/stalled-consumer.yaml

build: ## the zfab command, as bin/zfab
	CGO_ENABLED=0 $(GO) build -o bin/zfab ./cmd/zfab

image: build ## a Docker image of the zfab command alone, called zfab
	docker build --quiet --tag zfab --file integration/compose/Dockerfile bin

image-etcd: ## a Docker image of a member of an etcd cluster, called zfab-etcd
	cd integration && CGO_ENABLED=0 $(GO) build -o bin/etcdmember ./compose/etcdmember
	docker build --quiet --tag zfab-etcd --file integration/compose/Dockerfile.etcd integration/bin

cluster-up: image $(if $(filter etcd,$(CLUSTER)),image-etcd) ## a cluster of containers; CLUSTER=exchange (a directory, 4 nodes, 12 workers), etcd or tour
	$(COMPOSE) --file integration/compose/clusters/$(CLUSTER).yaml up --detach

cluster-run: ## a run of the exchange cluster, checked
	$(COMPOSE) --file integration/compose/clusters/$(CLUSTER).yaml run --rm --use-aliases run

cluster-down: ## takes it down
	$(COMPOSE) --file integration/compose/clusters/$(CLUSTER).yaml down --volumes --timeout 2

compose-plugin: ## version 2 of compose from its source, as `docker compose` for those who set DOCKER_CONFIG to bin/docker
	@mkdir -p bin/docker/cli-plugins
	src=$$(mktemp -d) && trap 'rm -rf "$$src"' EXIT && cd "$$src" && $(GO) mod init src 2>/dev/null && \
	cp -r "$$($(GO) mod download -json github.com/docker/compose/v2@$(COMPOSE_V2) | sed -n 's/^.*"Dir": "\(.*\)",$$/\1/p')" compose && \
	chmod -R u+w compose && cd compose && CGO_ENABLED=0 $(GO) build -trimpath \
	-ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$(COMPOSE_V2)" -o $(CURDIR)/bin/docker/cli-plugins/docker-compose ./cmd

cluster-test: build ## containers are killed, restarted and cut off under a running exchange (skipped where there is no Docker)
	cd integration && $(GO) test -v -count 1 -timeout 10m ./compose

test: ## all tests of the module, in less than 5 minutes on 2 cores
	$(GO) test -timeout 4m $(TESTFLAGS) $(PKGS)

race: ## the same with the race detector
	$(GO) test -race -timeout 10m $(TESTFLAGS) $(PKGS)

integration: build ## behaviour across real processes and real peers (a module of its own)
	cd integration && $(GO) vet ./... && $(GO) test -p 1 -timeout 15m $(TESTFLAGS) ./...

bench: ## benchmarks of the packages, with allocations
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem $(PKGS)

bench-peers: build ## throughput and round trip beside libzmq, NATS, yamux and others (about 3 minutes)
	cd integration && $(GO) run ./peers

bench-directory: ## a directory with 100,000 registrations, and with 1,000 nodes that renew (about 4 minutes)
	cd integration && $(GO) test -count 1 -timeout 20m -v -run 'TestRegistrations|TestRenewing' ./etcd \
		-registrations 100000 -renewing 1000 -renewfor 45s

soak: build ## faults in real processes: 3,000 cuts, 100 kills, 100 pauses, black holes (about 10 minutes)
	@set -e; for run in $(SOAK); do \
		bin/zfab run --runner process --timeout 6m testdata/topologies/$$run.yaml; \
	done

etcd-soak: ## 20 leaders of an etcd cluster and 50 directories killed under a running exchange (about 2 minutes)
	cd integration && ZFAB_ETCD_SOAK=1 $(GO) test -count 1 -timeout 20m -v -run TestDirectoriesAndLeadersDie ./etcd

fuzz: ## every fuzz target for FUZZTIME
	@set -e; for pkg in $$($(GO) list $(PKGS)); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

sim: ## SEEDS simulated histories from seed FROM on, or with SEED=n TRACE=1 one, event by event
	$(GO) run ./fabric/internal/sim/run $(if $(SEED),-seed $(SEED),-from $(FROM) -seeds $(SEEDS)) $(if $(TRACE),-trace)

explore: ## every interleaving of small worlds of the link's core, for EXPLORETIME
	$(GO) test -timeout 0 -v -run '^TestExplore$$' ./fabric/internal/link -explore $(EXPLORETIME)

sim-bugs: ## the simulator finds every mistake that can be planted into flow, link and peering
	$(GO) test -tags plantedbugs -run TestPlantedBugs -count 1 -v -timeout 10m ./fabric/internal/sim

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l .); \
	if [ -n "$$unformatted" ]; then echo "gofmt -w is due for:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

check: lint race ## what every commit passes: lint and race

clean: ## what the other targets have built
	rm -rf bin integration/bin
