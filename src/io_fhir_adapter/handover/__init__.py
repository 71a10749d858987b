"""From drawn cases to what leaves: sealing, an approver's look, and sending nothing that was not approved."""
