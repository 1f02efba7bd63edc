"""Jobs at the centre: from a JDL to who runs it where, and its states. Pure but for store and inputs."""
