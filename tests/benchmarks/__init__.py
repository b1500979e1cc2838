"""Times camviz beside the bare forward pass and the peers: `python -m tests.benchmarks`."""
