.PHONY: run test long

run:
	python3 dev.py run $(ARGS)

test:
	python3 dev.py test $(ARGS)

long:
	python3 dev.py test --long $(ARGS)
