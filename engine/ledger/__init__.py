"""The ledger: a deterministic state machine from commands to events. ``README.md`` states its rules; start there."""
