"""The Grid as an API: JDL, wire, credentials, catalogue, jobs."""
