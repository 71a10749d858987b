"""The local database: facts, decisions, runs, cursors, draws, outbox, receipts."""
