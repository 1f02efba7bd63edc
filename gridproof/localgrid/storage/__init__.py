"""Storage elements: real XRootD servers, the envelopes that open them, transfers."""
