"""The provider's own Batch API: on both stores, against a provider in memory and one over HTTP."""
