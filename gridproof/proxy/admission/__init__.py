"""Who may come in: join keys, users' keys, job tokens; strangers are turned away."""
