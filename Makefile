# `make check` runs what .ci/run runs except the soak, in the active environment.
.PHONY: check lint types test slow bench audit

check: lint types test

lint:
	ruff check .
	ruff format --check .

types:
	mypy -p vlfau.engine -p vlfau.models -p vlfau.calibration
	MYPYPATH=bench:tests/helpers mypy bench tests docs examples

test:
	pytest -n 2 --dist loadfile -m "not slow and not gpu"

slow:
	pytest -m "slow and not gpu"

# Takes a quarter of an hour on an otherwise idle machine. $VLFAU_SHARDS names a folder of renders.
bench:
	python bench/results.py

# Known vulnerabilities of what is installed; needs the data of pypi.org.
audit:
	python .ci/audit.py
