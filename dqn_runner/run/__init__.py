"""A run on disk: its directory, whether a stored run is the same run, its provenance and its curves."""
