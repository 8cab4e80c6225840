# `make help` says what there is. Results, environments and the lab's kernel live in .cache/.

PYTHON = /usr/bin/python3
TOOLS = .cache/venv-tools/bin
RESULTS = .cache/results
PYTEST = -m pytest -q -p no:cacheprovider
export PYTHONDONTWRITEBYTECODE = 1

.PHONY: help setup demo check check-unit check-newest check-dns bench-ike bench-scale fuzz simulate bench-dns bench-latency check-lab interop demo-deb check-deb lint conformance deb clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup:  ## install what everything below needs (Debian packages, as root; the rest in .cache)
	@tools/setup-lab

demo:  ## watch Alice's datagrams to Bob being encrypted by gateways that never heard of each other
	@tools/setup-lab debian kernel
	@$(PYTHON) -m tests.lab.prepare
	@tools/in-lab-kernel --time-limit 900 $(PYTHON) -m tests.lab.demo

check: setup  ## everything; ends with one summary of it all
	@tools/check lint unit newest dns deb lab

check-unit:  ## the quick part: unit tests on Debian's own packages
	$(PYTHON) $(PYTEST) -m "not lab" --junitxml=$(RESULTS)/unit.xml

check-newest:  ## unit tests on the newest Twisted, cryptography and pyroute2 of PyPI
	@tools/setup-lab newest
	.cache/venv-newest/bin/python $(PYTEST) -m "not lab" --junitxml=$(RESULTS)/newest.xml

check-dns:  ## the long tests of DNSSEC: 20,000 corrupted chains, eight hours of roll-overs
	OEGW_CHAINS=20000 $(PYTHON) $(PYTEST) tests/dns/test_corruption.py tests/dns/test_eight_hours.py \
	  --junitxml=$(RESULTS)/dns.xml

bench-ike:  ## CPU of a handshake of IKE beside its arithmetic alone; memory, two cores
	@$(PYTHON) bench/ike

bench-scale:  ## 100,000 flows and 10,000 tunnels in one daemon; fewer in the lab's kernel, which has ESP, and is slow
	@unshare --net $(PYTHON) bench/scale
	@tools/setup-lab debian kernel
	@tools/in-lab-kernel --time-limit 3000 --memory 4G unshare --net $(PYTHON) bench/scale --flows 10000 --tunnels 2000 \
	  --tunnels-per-peer 100 --destinations 50

fuzz:  ## fuzz all that reads from the network, guided by coverage (SECONDS=n of CPU, default 3600; T=targets)
	@tools/setup-lab fuzz
	nice -n 19 fuzz/run --seconds $(or $(SECONDS),3600) $(T)

simulate:  ## a week of a thousand gateways on a simulated clock, with faults; the invariants at every step (A=options)
	nice -n 10 $(PYTHON) simulate/run $(A)

bench-dns:  ## CPU of one look-up, cold and warm, beside unbound's on the same names
	@$(PYTHON) bench/dns

bench-latency:  ## a first datagram's way to Bob, in the lab's kernel, beside strongSwan's trap and libreswan's on-demand
	@tools/setup-lab debian kernel peers
	@$(PYTHON) -m tests.lab.prepare
	@tools/in-lab-kernel --time-limit 1500 --memory 4G $(PYTHON) bench/latency

check-lab:  ## the lab's tests: network namespaces, real ESP, real signed zones (T=expression chooses some)
	@tools/setup-lab debian kernel peers
	@$(PYTHON) -m tests.lab.prepare
	tools/lab-tests $(if $(T),"$(T)")

interop:  ## the whole matrix with strongSwan and libreswan (an hour, emulated); writes docs/interop.md
	@tools/setup-lab debian kernel peers
	@$(PYTHON) -m tests.lab.prepare
	@rm -rf .cache/lab-out/test_* .cache/lab-out/interop.jsonl
	OEGW_INTEROP=full tools/in-lab-kernel --time-limit 7200 --memory 4G $(PYTHON) $(PYTEST) tests/lab/test_interop*.py \
	  -m lab -vv; status=$$?; $(PYTHON) -m tests.lab.interop_page && exit $$status

lint:  ## ruff, mypy (strict on ipsec, ike, oe), and whether docs/conformance.md is up to date
	@tools/setup-lab tools newest
	$(TOOLS)/ruff check . tools/in-lab-kernel tools/conformance bench/dns bench/ike bench/latency bench/scale fuzz/run simulate/run
	$(TOOLS)/mypy --python-executable .cache/venv-newest/bin/python
	$(PYTHON) tools/conformance --check

conformance:  ## write docs/conformance.md anew from the marks on the tests
	$(PYTHON) tools/conformance

demo-deb: deb  ## from `apt install` of that package in two fresh bookworms to an encrypted ping (ACT=upgrade: what comes later)
	@tools/setup-lab debian kernel
	@tools/clean-root host
	@nice $(PYTHON) -m tests.lab.demo_deb prepare .cache/deb/oegw_*_all.deb
	@tools/in-lab-kernel --time-limit 1500 --memory 4G $(PYTHON) -m tests.lab.demo_deb $(or $(ACT),ping)

check-deb: deb  ## lint that package, build it in a clean bookworm, install, test, remove and purge it in a fresh one
	@tools/try-package

deb:  ## build the Debian package in .cache/deb
	@tools/setup-lab debian
	rm -rf .cache/deb && mkdir -p .cache/deb/oegw
	git ls-files -z | tar -c --null -T - | tar -x -C .cache/deb/oegw
	cd .cache/deb/oegw && dpkg-buildpackage -b -us -uc >../build.log 2>&1 || { tail -50 ../build.log; exit 1; }
	dpkg-deb --info .cache/deb/oegw_*.deb

clean:  ## remove all that was made here, but the environments and the lab's kernel
	rm -rf build *.egg-info .pybuild .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf $(RESULTS) .cache/lab-out .cache/deb
	find . -name __pycache__ -prune -exec rm -rf {} +
