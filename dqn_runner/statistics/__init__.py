"""Statistics of the scores of several runs: aggregates, intervals and comparisons, with numpy alone."""
