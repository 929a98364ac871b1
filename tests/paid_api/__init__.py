"""A provider to fight with: a paid API as a process of its own, with books that outlive a kill -9. See README.md."""
