# `make demo` and `make test` need nothing but Python: they make .venv and install all they use, inside this folder.
PYTHON ?= python3
# The on-board side is tested on Python 3.10 (JetPack 6) where the machine has one, otherwise on $(PYTHON).
PYTHON_ONBOARD ?= $(shell for p in python3.10 $$HOME/.pyenv/versions/3.10*/bin/python3.10; do \
	"$$p" -c 'import venv' 2>/dev/null && echo "$$p" && exit; done; echo $(PYTHON))
BIN := .venv/bin
PIP_FLAGS := --quiet --disable-pip-version-check --no-warn-script-location -c constraints.txt
OUT ?= demo/out
SCENE ?=
TRAIN_FLAGS := --epochs 46 --calm-epochs 7 --teacher-epochs 24 --random-widths 1 --optimizer muon --precision bf16 --seed 0

.PHONY: demo test lint unit onboard train clean

demo: .venv/.installed
	$(BIN)/edgeslim demo $(SCENE) -o $(OUT)

test: lint unit onboard

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: .venv/.installed
	$(BIN)/python -m pytest

# A second environment without torch and onnx: what flies must run there, a real artifact of the ground's included.
onboard: .venv/.installed .venv-onboard/.installed
	.venv-onboard/bin/python tests/onboard/environment.py
	$(BIN)/edgeslim export --encoder eurosat-rgb -w 0.25 -o .venv-onboard/artifact
	.venv-onboard/bin/edgeslim check .venv-onboard/artifact
	.venv-onboard/bin/python -m pytest tests --ignore tests/ground

# Remakes the embedded encoder from EuroSAT's RGB tiles (TILES=folder or zip); hours on two cores.
train: .venv/.installed
	$(BIN)/edgeslim train $(TILES) -o runs/eurosat-rgb $(TRAIN_FLAGS)

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install $(PIP_FLAGS) --upgrade pip
	$(BIN)/python -m pip install $(PIP_FLAGS) -e '.[ground,demo,dev]'
	touch $@

# Installed as a wheel, not in place: the cards and weights must travel in it.
.venv-onboard/.installed: pyproject.toml constraints.txt $(shell git ls-files edgeslim devices profiles export)
	$(PYTHON_ONBOARD) -m venv .venv-onboard
	.venv-onboard/bin/python -m pip install $(PIP_FLAGS) --upgrade pip
	.venv-onboard/bin/python -m pip install $(PIP_FLAGS) '.[onnx]' pytest hypothesis
	touch $@

clean:
	rm -rf .venv .venv-onboard demo/out artifact plan.json
