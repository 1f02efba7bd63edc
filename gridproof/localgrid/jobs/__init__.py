"""Jobs at the centre: from a JDL to who runs it where. Pure but for store, inputs and packages."""
