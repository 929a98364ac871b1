"""COPE: efficient LLM collaboration via planning, as a service. The product without its processes."""
