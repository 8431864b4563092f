"""Scenarios: a task under load, as MLPerf's LoadGen puts it there, or in training until it is good enough.

Reddi et al. 2020, "MLPerf Inference Benchmark", doi 10.1109/ISCA45697.2020.00045.
"""
