"""The functional update: compiled into a library that is kept on disk, or captured as a CUDA graph."""
