"""The file catalogue, in SQLite: names, who may do what with them, where their replicas are."""
