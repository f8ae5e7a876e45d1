SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
SETUP := $(PYTHON) scripts/setup.py --venv $(VENV)
DOCS := $(PYTHON) scripts/setup.py --venv .venv-docs docs

.PHONY: help demo demo-vllm test test-fast test-unit test-local test-contract test-k8s test-vllm rules-test browser-test check docs docs-serve crds metrics-page bench bench-truth bench-traces bench-ray bench-constant bench-prediction bench-autoscalers bench-schedules bench-growth bench-robust bench-console cluster demo-k8s cluster-down lock setup clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo:  ## three tiers on this machine: connections grow, p95 stays flat
	@$(SETUP) runtime
	@$(BIN)/python -m tierserve.cli.demo

demo-vllm:  ## the same with real models on this machine's CPUs: cloud on vLLM, device on llama.cpp (the first time downloads 3 GB)
	@$(PYTHON) scripts/setup.py --venv .venv-vllm vllm
	@.venv-vllm/bin/python scripts/hf_model.py examples/real-models.yaml out/demo-vllm/real-models.yaml
	@.venv-vllm/bin/python -m tierserve.cli.demo --file out/demo-vllm/real-models.yaml --out out/demo-vllm \
		--steps 1,2,4,8 --step-seconds 40 --trace-seconds 0

test:  ## set everything up and run all checks and tests (37 minutes on 2 cores; the first time also builds Go programs)
	@$(SETUP) dev --browser
	@$(BIN)/python scripts/prebuild.py
	@$(MAKE) --no-print-directory check test-unit test-local test-contract test-k8s

test-fast:  ## unit and property tests without the slow ones (2 minutes)
	@$(SETUP) dev
	@$(BIN)/python -m pytest tests/unit tests/property -m "not slow" -n auto

test-unit:  ## all unit and property tests, with a real language model and simulations
	@$(SETUP) dev
	@$(BIN)/python -m pytest tests/unit tests/property -n auto --dist worksteal

test-local:  ## real HAProxy, Ray Serve, Chromium and whole services on this machine
	@$(SETUP) dev --browser
	@$(BIN)/python -m pytest tests/component tests/faults tests/browser tests/e2e/local

browser-test:  ## the console and the report page in a real Chromium (2 minutes)
	@$(SETUP) dev --browser
	@$(BIN)/python -m pytest tests/browser

test-contract:  ## the chart with real helm, the CRD and the operator with a real kube-apiserver and KubeRay
	@$(SETUP) dev
	@$(BIN)/python scripts/prebuild.py --programs
	@$(BIN)/python -m pytest tests/chart tests/contract

test-k8s:  ## a service on real kubelets, from apply to delete (run nothing else meanwhile)
	@$(SETUP) dev
	@$(BIN)/python scripts/prebuild.py --wait
	@$(BIN)/python -m pytest tests/e2e/kubernetes

rules-test:  ## alerts: silent before, firing after, silent again, with Prometheus' promtool
	@$(SETUP) dev
	@$(BIN)/python -m pytest tests/unit/render/kubernetes/test_alerts.py tests/chart/test_chart.py

test-vllm:  ## real vLLM on this machine's CPUs, in an environment of its own (.venv-vllm; the first time downloads 3 GB)
	@$(PYTHON) scripts/setup.py --venv .venv-vllm vllm
	@.venv-vllm/bin/python scripts/hf_model.py
	@.venv-vllm/bin/python -m pytest tests/vllm -n 2 --dist loadfile

check:  ## ruff, mypy, import-linter, generated files, and no private vocabulary
	@$(SETUP) dev
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy && MYPYPATH=scripts $(BIN)/mypy scripts/cluster.py scripts/setup.py scripts/prebuild.py scripts/check_words.py scripts/metrics_page.py scripts/dashboards.py scripts/docs_site.py
	@$(BIN)/lint-imports
	@$(BIN)/python -m tierserve.api.schema --check crds/genaideployments.yaml
	@$(BIN)/python -m tierserve.api.schema --check charts/tierserve/files/genaideployments.yaml
	@$(BIN)/python -m tierserve.api.schema.reference --check docs/reference.md
	@$(BIN)/python scripts/metrics_page.py --check docs/metrics.md
	@$(BIN)/python scripts/dashboards.py --check charts/tierserve/files/dashboards
	@$(BIN)/python scripts/check_words.py
	@$(MAKE) --no-print-directory docs

docs:  ## build the site made of docs/ into out/site
	@$(DOCS)
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "out/site/index.html"

docs-serve:  ## show the site at http://127.0.0.1:8000, rebuilt at each change
	@$(DOCS)
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs serve --strict

crds:  ## write crds/genaideployments.yaml and docs/reference.md from the models
	@$(SETUP) dev
	@$(BIN)/python -m tierserve.api.schema --write crds/genaideployments.yaml
	@$(BIN)/python -m tierserve.api.schema --write charts/tierserve/files/genaideployments.yaml
	@$(BIN)/python -m tierserve.api.schema.reference --write docs/reference.md

metrics-page:  ## write docs/metrics.md from what the processes export, and the Grafana dashboards of the chart
	@$(SETUP) dev
	@$(BIN)/python scripts/metrics_page.py --write docs/metrics.md
	@$(BIN)/python scripts/dashboards.py --write charts/tierserve/files/dashboards

bench:  ## speed of the queueing formulas compared with other libraries, and deployments planned per second
	@$(SETUP) bench
	@$(BIN)/python -m bench.queueing.measure
	@$(BIN)/python -m bench.queueing.plans_per_second

bench-truth:  ## every queueing formula compared with exact chains and the simulator (a minute or two)
	@$(SETUP) dev
	@$(BIN)/python -m bench.queueing.truth

bench-traces:  ## predicted and simulated response times on real traces, with bursts and long prompts (8 minutes)
	@$(SETUP) dev
	@$(BIN)/python -m bench.prediction.traces_page
	@$(BIN)/python -m bench.prediction.long_prompts

bench-ray:  ## ErlangPolicy compared with Ray Serve's own autoscaler on the same load (about 50 minutes)
	@$(SETUP) runtime
	@$(BIN)/python -m bench.serving.ray_autoscaler_page

bench-constant:  ## five minutes of constant load: how often the target changes
	@$(SETUP) runtime
	@$(BIN)/python -m bench.serving.constant_load

bench-prediction:  ## predicted and measured response times of real Ray Serve (about 18 minutes)
	@$(SETUP) runtime
	@$(BIN)/python -m bench.prediction.measure

bench-autoscalers:  ## scaling rules of TierServe and others on real traces and synthetic loads, simulated
	@$(SETUP) dev
	@$(BIN)/python -m bench.autoscaling.page

bench-schedules:  ## the gain of knowing all arrivals on five of these loads: a search, simulated (half an hour)
	@$(SETUP) dev
	@$(BIN)/python -m bench.autoscaling.schedule

bench-growth:  ## p95 from 10 to 500,000 connections that grow by 10% a minute, TierServe and others, simulated (6 minutes)
	@$(SETUP) dev
	@$(BIN)/python -m bench.growth.page

bench-robust:  ## scaling rules on 200 random loads that none was developed on, and on traces, simulated (hours)
	@$(SETUP) dev
	@$(BIN)/python -m bench.robust --judge --jobs 2

bench-console:  ## the console with 50 sites and 1,000 services: first paint, API, what-if (a minute)
	@$(SETUP) dev --browser
	@$(BIN)/python -m bench.console.measure

cluster:  ## a cluster to try it on, from kind-config.yaml: kind where Docker is installed, else processes of this host
	@$(SETUP) dev
	@$(BIN)/python scripts/cluster.py up

demo-k8s:  ## on `make cluster`: install, apply, serve, grow, shrink, delete (about 8 minutes)
	@$(SETUP) dev
	@$(BIN)/python scripts/demo_k8s.py

cluster-down:  ## end only what `make cluster` started
	@$(BIN)/python scripts/cluster.py down

lock:  ## recompile the locks
	@$(SETUP) lock

setup:  ## create the virtual environment only
	@$(SETUP) dev

clean:  ## remove what was made here (the caches in your home stay)
	rm -rf $(VENV) .venv-vllm .venv-docs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis out
