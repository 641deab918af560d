"""Predictions that outlive whoever asked for them: ledger, budget, storage, worker."""
