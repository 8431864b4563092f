"""The tasks that Gnomon works on: models, their data and their measure of quality, each beside its manifest."""
