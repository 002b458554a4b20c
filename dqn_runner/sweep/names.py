"""File names in the directory of a sweep."""

JOURNAL = "study.journal"
"""The study, unless it is in a database."""
RESULTS = "optimization_results.yaml"
"""The results, written at each end of the sweep."""
REPORT = "report.html"
"""The page about the sweep, written after each trial; the default name of other pages too."""
