"""Recorded answers of real models, served as an OpenAI-compatible endpoint and solved again by the policies."""
