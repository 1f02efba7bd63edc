"""``gridproof doctor``: whether everything is there that a session needs, and how to mend what is not."""
