# Each target is a task of tasks.py. Pass it arguments with ARGS, as in `make test ARGS="-k house"`.
PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check audit format wheel benchmarks clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1	\2/' | expand -t 20

demo: ## install, then distil a small language model
	$(PYTHON) tasks.py demo $(ARGS)

test: ## lint, types, the wheel, and the tests
	$(PYTHON) tasks.py test $(ARGS)

check: ## lint, types, and what bandit finds unsafe
	$(PYTHON) tasks.py check

audit: ## known vulnerabilities of our dependencies (over the network)
	$(PYTHON) tasks.py audit

format: ## rewrite the sources in the house's format
	$(PYTHON) tasks.py format

wheel: ## build the archives and test the wheel
	$(PYTHON) tasks.py wheel

benchmarks: ## run every benchmark
	$(PYTHON) tasks.py benchmarks $(ARGS)

clean: ## remove everything the other targets made
	$(PYTHON) tasks.py clean
