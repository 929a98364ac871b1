"""Policies: data plus one pure decision each. `registry.next_decision` is the way in."""
