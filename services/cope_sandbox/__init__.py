"""Runs programs that a model wrote, each in a process that can do nothing but compute."""
