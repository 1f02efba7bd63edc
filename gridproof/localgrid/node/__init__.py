"""Jobs on the worker node: agent, sandbox, payload, limits, what is saved."""
