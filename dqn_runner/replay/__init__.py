"""Replay buffers: storage of transitions, and samplers that draw batches from it."""
