"""What the central service answers: a module for each group of JAliEn's commands."""
