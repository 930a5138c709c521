# Thin over scripts/setup.sh, which does the same where make is missing. env.example names every variable.
.DEFAULT_GOAL := help
.PHONY: help up down purge demo demo-down check test test-fast bench dev
export PATHS

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## Set this machine up and back it up; PATHS="/etc /home" says what
	@sh scripts/setup.sh up

down: ## Stop the controller
	@sh scripts/setup.sh down

purge: ## Remove the installation but for its repositories
	@sh scripts/setup.sh purge --yes

demo: ## Try it: four hosts in containers and a controller of their own
	@sh scripts/setup.sh demo

demo-down: ## End the demo and remove all of it
	@sh scripts/setup.sh demo-down

dev: ## Install what developing needs
	@sh scripts/setup.sh dev

check: ## Lint, types, imports, templates
	@sh scripts/setup.sh check

test: ## All tests, on real hosts in containers
	@sh scripts/setup.sh test

test-fast: ## Unit, API and architecture tests, under two minutes
	@sh scripts/setup.sh test-fast

bench: ## Measure against peers and limits
	@sh scripts/setup.sh bench
