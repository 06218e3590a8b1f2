"""Looks for bytes that readers answer with no result and no sentence."""
