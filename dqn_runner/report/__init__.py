"""Reports: pages of runs, comparisons and sweeps, as files and on a local server."""
