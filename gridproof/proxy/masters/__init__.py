"""Masters of sessions: processes under their users' accounts, with certificates and a store."""
