"""Every policy beside COPE: its decisions, step by step."""
