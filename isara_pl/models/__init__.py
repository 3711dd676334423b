"""Models: where they come from, loading, tokens, the adapter, merging, FLOPs."""
