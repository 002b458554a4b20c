"""The directory of one run, what makes a run the same run, its provenance and curves."""
